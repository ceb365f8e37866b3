"""Tenants, their users and the users' sessions: the rules, and the events that record what happened.

    Refusal
    +-- MalformedIdentifier
    |   +-- ReservedTenant    request.malformed_id       an id that belongs to the platform
    +-- Absent
    |   +-- UnknownRole       absent.role                see roles.py
    |   +-- RoleNotHeld       absent.role                a role that the user has not

What is so already is not recorded again: assigning a role twice or disabling a disabled user gives no event. Roles
and tenants are facts of the user `system`; a user's and a session's events are that user's, encrypted under that user's
key, so that a handle, an e-mail and a name are gone with it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from eventsourcing.domain import Aggregate

from remit_auth.ids import aggregate_id
from remit_auth.roles import UnknownRole
from remit_contracts.errors import Absent, MalformedIdentifier
from remit_contracts.identity import RESERVED_TENANTS, label

BUILT_IN_ISSUER: Final = "remit-dev"
"""Who vouches for users in development, by the `iss` of its tokens."""


class ReservedTenant(MalformedIdentifier):
    """An id that means something else."""

    def __init__(self, *, tenant: str) -> None:
        super().__init__(kind="tenant of yours (it is reserved)", value=tenant)


class RoleNotHeld(Absent):
    """A role that is to be taken from a user who has not got it, whether it is defined or not."""

    code = "absent.role"

    def __init__(self, *, role: str, held: Collection[str]) -> None:
        has = ", ".join(sorted(held)) or "none"
        super().__init__(f"the user does not hold the role {role}; held: {has}", code=self.code)


class Tenant(Aggregate):
    """A customer. It is suspended and resumed, never deleted, so its id is never used again."""

    TOPIC = "auth.Tenant"

    def __init__(self, tenant_id: str, name: str | None) -> None:
        self.tenant_id = tenant_id
        self.name = name
        self.active = True

    @staticmethod
    def id_of(tenant_id: str) -> UUID:
        """The aggregate's id: one per tenant, so a second creation conflicts."""
        return aggregate_id("tenant", tenant_id)

    @classmethod
    def create(cls, *, tenant_id: str, name: str | None, at: datetime) -> Tenant:
        """Raises ReservedTenant for the platform's own ids."""
        if label(tenant_id, kind="tenant") in RESERVED_TENANTS:
            raise ReservedTenant(tenant=tenant_id)
        return cls._create(cls.Created, id=cls.id_of(tenant_id), timestamp=at, tenant_id=tenant_id, name=name)

    def suspend(self, *, reason: str | None, at: datetime) -> None:
        """Nobody of the tenant connects any more."""
        if self.active:
            self.trigger_event(self.Suspended, timestamp=at, reason=reason)

    def resume(self, *, at: datetime) -> None:
        """Undo a suspension."""
        if not self.active:
            self.trigger_event(self.Resumed, timestamp=at)

    class Event(Aggregate.Event):
        """Something that happened to it."""

    class Created(Event, Aggregate.Created):
        TOPIC = "auth.Tenant.Created"
        tenant_id: str
        name: str | None

    class Suspended(Event):
        TOPIC = "auth.Tenant.Suspended"
        reason: str | None

        def apply(self, aggregate: Tenant) -> None:
            aggregate.active = False

    class Resumed(Event):
        TOPIC = "auth.Tenant.Resumed"

        def apply(self, aggregate: Tenant) -> None:
            aggregate.active = True


class User(Aggregate):
    """A person. The id is opaque and for ever; handle, e-mail and name are attributes that can be erased."""

    TOPIC = "auth.User"

    def __init__(self, user_id: str, handle: str, email: str | None, name: str | None) -> None:
        self.user_id = user_id
        self.handle = handle
        self.email = email
        self.name = name
        self.roles: set[str] = set()
        self.active = True

    @staticmethod
    def id_of(tenant_id: str, user_id: str) -> UUID:
        """The aggregate's id: a user id that is used again conflicts."""
        return aggregate_id("user", tenant_id, user_id)

    @classmethod
    def register(
        cls, *, tenant_id: str, user_id: str, handle: str, email: str | None, name: str | None, at: datetime
    ) -> User:
        """The handle must be free: the directory knows, see application.py."""
        return cls._create(
            cls.Registered,
            id=cls.id_of(tenant_id, label(user_id, kind="user")),
            timestamp=at,
            user_id=user_id,
            handle=label(handle, kind="handle"),
            email=email,
            name=name,
        )

    def assign_role(self, *, role: str, defined_roles: Collection[str], at: datetime) -> None:
        """Raises UnknownRole unless it is defined."""
        if role not in defined_roles:
            raise UnknownRole(role=role)
        if role not in self.roles:
            self.trigger_event(self.RoleAssigned, timestamp=at, role=role)

    def remove_role(self, *, role: str, at: datetime) -> None:
        """Raises RoleNotHeld when the user does not hold it, so that a misspelt removal never looks done."""
        if role not in self.roles:
            raise RoleNotHeld(role=role, held=self.roles)
        self.trigger_event(self.RoleRemoved, timestamp=at, role=role)

    def disable(self, *, reason: str | None, at: datetime) -> None:
        """The user connects no more, and every decision about the user is no."""
        if self.active:
            self.trigger_event(self.Disabled, timestamp=at, reason=reason)

    def enable(self, *, reason: str | None, at: datetime) -> None:
        """Undo `disable`."""
        if not self.active:
            self.trigger_event(self.Enabled, timestamp=at, reason=reason)

    class Event(Aggregate.Event):
        """Something that happened to it."""

    class Registered(Event, Aggregate.Created):
        TOPIC = "auth.User.Registered"
        user_id: str
        handle: str
        email: str | None
        name: str | None

    Created = Registered  # the library would make one more event of this name

    class RoleAssigned(Event):
        TOPIC = "auth.User.RoleAssigned"
        role: str

        def apply(self, aggregate: User) -> None:
            aggregate.roles.add(self.role)

    class RoleRemoved(Event):
        TOPIC = "auth.User.RoleRemoved"
        role: str

        def apply(self, aggregate: User) -> None:
            aggregate.roles.discard(self.role)

    class Disabled(Event):
        TOPIC = "auth.User.Disabled"
        reason: str | None

        def apply(self, aggregate: User) -> None:
            aggregate.active = False

    class Enabled(Event):
        TOPIC = "auth.User.Enabled"
        reason: str | None

        def apply(self, aggregate: User) -> None:
            aggregate.active = True


class Session(Aggregate):
    """A signed-in stretch of time of one user: it ends at its expiry, or before."""

    TOPIC = "auth.Session"

    def __init__(self, session_id: str, user_id: str, ttl_seconds: int, issuer: str) -> None:
        self.session_id = session_id
        self.user_id = user_id
        self.ttl_seconds = ttl_seconds
        self.issuer = issuer
        self.ended = False

    @staticmethod
    def id_of(tenant_id: str, session_id: str) -> UUID:
        """The aggregate's id."""
        return aggregate_id("session", tenant_id, session_id)

    @classmethod
    def open(
        cls, *, tenant_id: str, session_id: str, user_id: str, ttl_seconds: int, issuer: str, at: datetime
    ) -> Session:
        """Begins now and lasts `ttl_seconds`; `issuer` (the `iss` of its tokens) vouches that it is this user's."""
        return cls._create(
            cls.Opened,
            id=cls.id_of(tenant_id, label(session_id, kind="session")),
            timestamp=at,
            session_id=session_id,
            user_id=user_id,
            ttl_seconds=ttl_seconds,
            issuer=issuer,
        )

    @property
    def expires_at(self) -> datetime:
        """When it ends by itself."""
        return self.created_on + timedelta(seconds=self.ttl_seconds)

    def end(self, *, reason: str, at: datetime) -> None:
        """End it now."""
        if not self.ended:
            self.trigger_event(self.Ended, timestamp=at, session_id=self.session_id, reason=reason)

    class Event(Aggregate.Event):
        """Something that happened to it."""

    class Opened(Event, Aggregate.Created):
        TOPIC = "auth.Session.Opened"
        class_version = 2
        session_id: str
        user_id: str
        ttl_seconds: int
        issuer: str

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """Version 1 did not say who vouched for the user, and was written when only the built-in issuer could."""
            state["issuer"] = BUILT_IN_ISSUER

    Created = Opened  # the library would make one more event of this name

    class Ended(Event):
        TOPIC = "auth.Session.Ended"
        session_id: str
        reason: str

        def apply(self, aggregate: Session) -> None:
            aggregate.ended = True
