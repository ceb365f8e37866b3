"""Identifiers and who a caller is.

A tenant, user, session, agent or tool id is a DNS label (RFC 1123): lower-case ASCII letters, digits and inner
hyphens, 63 characters at most. Nothing is ever normalised into an identifier: what does not match is refused.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from remit_contracts.errors import MalformedIdentifier

MAX_CHARACTERS = 63
DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)

PLATFORM_TENANT = "platform"
"""The tenant of what concerns no tenant (health, installation). Nobody's tenant may have this id."""

SYSTEM_USER = "system"
"""The user of facts that belong to a tenant and to no one person (roles, the tenant itself). Nobody's user id."""

RESERVED_TENANTS = frozenset({PLATFORM_TENANT, SYSTEM_USER, "services", "svc", "remit"})


def is_label(value: object) -> bool:
    """Whether `value` is an identifier as it stands."""
    return isinstance(value, str) and len(value) <= MAX_CHARACTERS and _is_dns_label(value)


@lru_cache(maxsize=8192)  # one call of a tool looks at the same few tokens some 60 times
def _is_dns_label(value: str) -> bool:
    return DNS_LABEL.fullmatch(value) is not None


def label(value: str, *, kind: str = "identifier") -> str:
    """`value` itself when it is an identifier; raises MalformedIdentifier otherwise."""
    if not is_label(value):
        raise MalformedIdentifier(kind=kind, value=value)
    return value


def _as_label(value: str) -> str:
    return label(value)


Label = Annotated[str, AfterValidator(_as_label)]
"""A pydantic field that holds an identifier."""


class Caller(NamedTuple):
    """Who says something, as proved by the subject it arrived on (the server enforces subjects), never by its payload.

    `session` comes from the caller's reply inbox and is empty for services, whose inbox belongs to no session.
    """

    tenant: str
    user: str
    session: str = ""


class Handle(NamedTuple):
    """A name by which people look a user up: `acme/analyst`. An attribute, never an identity."""

    tenant: str
    handle: str

    @classmethod
    def parse(cls, text: str) -> Handle:
        """`TENANT/HANDLE`; raises MalformedIdentifier when either part is no label."""
        tenant, slash, handle = text.partition("/")
        if not slash:
            raise MalformedIdentifier(kind="handle (TENANT/HANDLE)", value=text)
        return cls(label(tenant, kind="tenant"), label(handle, kind="handle"))

    def __str__(self) -> str:
        return f"{self.tenant}/{self.handle}"


def data_key_scope(tenant: str, user: str) -> bytes:
    """The one injective form of (tenant, user) for keys, caches and associated data: labels hold no slash."""
    return f"{label(tenant, kind='tenant')}/{label(user, kind='user')}".encode()
