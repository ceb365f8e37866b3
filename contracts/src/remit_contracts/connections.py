"""Connections: a user's, or a tenant's shared, way into an outside system. No message ever holds a secret in the clear.

    verb                   command           answer
    cmd sealing-key        Nothing           SealingKey
    cmd add-connection     AddConnection     ConnectionShown
    cmd list-connections   Nothing           ConnectionsListed    one's own and the tenant's shared ones
    cmd show-connection    ShowConnection    ConnectionShown
    cmd test-connection    TestConnection    ConnectionTested
    cmd revoke-connection  RevokeConnection  ConnectionShown

A client seals a secret to the broker's public key before it sends it: base64 of a NaCl SealedBox (X25519). Adding one
of one's own is decided as `connection.add`; whatever changes or uses a shared one directly, as `connection.share`.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from remit_contracts.identity import Label
from remit_contracts.messages import Answer, Command

MAX_HOSTS: Final = 10
MAX_SCOPES: Final = 64
MAX_SEALED_CHARACTERS: Final = 8_192
MAX_SECRET_BYTES: Final = 4_096

ConnectionKind = Literal["bearer"]
ConnectionStatus = Literal["active", "revoked"]

_HOST = re.compile(
    r"(?P<name>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,45}\]):(?P<port>[1-9][0-9]{0,4})", re.ASCII
)
_SCOPE = re.compile(r"[!#-\[\]-~]{1,128}", re.ASCII)  # RFC 6749: scope-token
_PATH = re.compile(r"/[!-~]{0,511}", re.ASCII)


def split_host(value: str) -> tuple[str, int]:
    """`("desk.example", 443)` of `desk.example:443`; an IPv6 address stands in brackets. Raises ValueError."""
    match = _HOST.fullmatch(value)
    if match is None or int(match["port"]) > 65_535 or ".." in match["name"]:
        raise ValueError("is no HOST:PORT in lower case, such as desk.example:443")
    return match["name"], int(match["port"])


def _host(value: str) -> str:
    split_host(value)
    return value


def _scope(value: str) -> str:
    if not _SCOPE.fullmatch(value):
        raise ValueError("is no scope: 1 to 128 printable ASCII characters without space, quote and backslash")
    return value


def _path(value: str) -> str:
    if not _PATH.fullmatch(value) or "#" in value:
        raise ValueError("is no path: it begins with / and holds printable ASCII without # only")
    return value


def _each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("names something twice")
    return values


Host = Annotated[str, AfterValidator(_host)]
Scope = Annotated[str, AfterValidator(_scope)]
ProbePath = Annotated[str, AfterValidator(_path)]
Hosts = Annotated[tuple[Host, ...], Field(max_length=MAX_HOSTS, strict=False), AfterValidator(_each_once)]
Scopes = Annotated[tuple[Scope, ...], Field(max_length=MAX_SCOPES, strict=False), AfterValidator(_each_once)]


class AddConnection(Command):
    """Keep a secret under `name`, for these hosts and no others. `shared`: for every user of the tenant.

    Without a host it is kept and lent to nobody: there is nowhere that it may be sent.

    `bearer`: the secret goes into an `Authorization: Bearer` header, so it is printable ASCII without spaces.
    """

    name: Label
    kind: ConnectionKind
    sealed_secret: Annotated[str, StringConstraints(min_length=1, max_length=MAX_SEALED_CHARACTERS)] = Field(repr=False)
    hosts: Hosts = ()
    scopes: Scopes = ()
    shared: bool = False


class ShowConnection(Command):
    """Look at one connection: one's own of that name, or the tenant's shared one."""

    name: Label


class TestConnection(Command):
    """Ask its first host for `path` with the secret (GET, redirects not followed)."""

    __test__ = False  # pytest takes it for a test by its name

    name: Label
    path: ProbePath = "/"


class RevokeConnection(Command):
    """Destroy its secret. Its leases end, and there are no more of them."""

    name: Label


class SealingKey(Answer):
    """The broker's public key: X25519, 64 hex digits."""

    public_key: str


class ConnectionShown(Answer):
    """A connection, without its secret. `last_test_ok` is null until it is tested."""

    name: str
    kind: ConnectionKind
    shared: bool
    status: ConnectionStatus
    hosts: tuple[str, ...]
    scopes: tuple[str, ...]
    added_at: datetime
    revoked_at: datetime | None = None
    last_tested_at: datetime | None = None
    last_test_ok: bool | None = None


class ConnectionsListed(Answer):
    """By name; one's own before the shared one of the same name."""

    connections: tuple[ConnectionShown, ...]


class ConnectionTested(Answer):
    """What the host said. `ok`: a status from 200 to 399. Without an answer `status` is null and `fault` says why."""

    name: str
    host: str
    path: str
    ok: bool
    status: int | None = None
    fault: str | None = None
    tested_at: datetime
