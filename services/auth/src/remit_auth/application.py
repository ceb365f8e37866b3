"""The directory's use cases: load an aggregate, call one method of it, save, let the directory read what was saved.

    Conflict
    +-- HandleTaken     conflict.handle_taken
    +-- TenantExists    conflict.tenant_exists
    NotSignedIn
    +-- Inactive        auth.inactive

Commands that change a tenant's directory go one at a time, so that a handle is looked up and taken in one step.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import structlog

from remit_auth.cutting import Cut
from remit_auth.domain import BUILT_IN_ISSUER, Session, Tenant, User
from remit_auth.ids import ENTROPY_BYTES, session_id_from, user_id_from
from remit_auth.issuer import DevelopmentIssuer
from remit_auth.projections import Directory, TenantDirectory
from remit_auth.roles import Roles
from remit_contracts.directory import (
    Permission,
    SessionEnded,
    TenantActivitySet,
    TokenIssued,
    UserActivitySet,
    UserRow,
)
from remit_contracts.errors import Absent, Conflict, NotSignedIn, Tampered, Unavailable
from remit_contracts.identity import SYSTEM_USER

if TYPE_CHECKING:
    from eventsourcing.domain import Aggregate

    from remit_chassis.eventstore.store import EventStore

READ_AT_ONCE = 500
RETRY_SECONDS = 0.2
T = TypeVar("T")
ERASED = "absent.erased"

DISABLED = "the user was disabled"
"""Why a session ended."""

CutOff = Callable[[str], Awaitable[Cut]]
"""Cuts off whoever of a tenant would not be let in again."""

Notify = Callable[[str, str, int], Awaitable[None]]
"""Told tenant, user (or `system`) and revision after every change."""


class HandleTaken(Conflict):
    """Somebody of the tenant has this handle, perhaps disabled."""

    code = "conflict.handle_taken"

    def __init__(self, *, tenant: str, handle: str) -> None:
        super().__init__(f"{tenant}/{handle} is registered already", code=self.code)


class TenantExists(Conflict):
    """A tenant's id is used once, for ever."""

    code = "conflict.tenant_exists"

    def __init__(self, *, tenant: str) -> None:
        super().__init__(f"tenant {tenant} exists already", code=self.code)


class Inactive(NotSignedIn):
    """A user who is disabled, or whose tenant is suspended."""

    code = "auth.inactive"

    def __init__(self, *, tenant: str, handle: str) -> None:
        super().__init__(f"{tenant}/{handle} is disabled, or the tenant is suspended", code=self.code)


class Accounts:
    """Administration of tenants, roles, users and sessions.

    `store_of(tenant)` is that tenant's event store, `entropy(n)` gives n random bytes.
    """

    def __init__(
        self,
        *,
        store_of: Callable[[str], EventStore],
        directory: Directory,
        issuer: DevelopmentIssuer,
        notify: Notify,
        cut_off: CutOff,
        clock: Callable[[], datetime],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store_of = store_of
        self._directory = directory
        self._issuer = issuer
        self._notify = notify
        self._cut_off = cut_off
        self._clock = clock
        self._entropy = entropy
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    # -- tenants and roles -----------------------------------------------------------------------------------------

    async def create_tenant(self, *, tenant: str, name: str | None) -> int:
        """Returns the revision; raises ReservedTenant, or TenantExists."""
        created = Tenant.create(tenant_id=tenant, name=name, at=self._clock())
        async with self._changing[tenant]:
            await self.catch_up(tenant)
            if self._directory.reading(tenant).known:
                raise TenantExists(tenant=tenant)
            return await self._record(tenant, SYSTEM_USER, created)

    async def set_tenant_active(self, *, tenant: str, active: bool, reason: str | None) -> TenantActivitySet:
        """Suspend, which cuts off its users, or resume."""
        change = self._set_tenant_active(tenant, active, reason)
        if active:
            return TenantActivitySet(revision=await change)
        revision, (cut, left) = await self._then_cut_off(tenant, change)
        return TenantActivitySet(revision=revision, connections_cut=cut, connections_left=left)

    async def _set_tenant_active(self, tenant: str, active: bool, reason: str | None) -> int:
        """The revision."""
        async with self._change(tenant) as store:
            changed = await store.load(Tenant, Tenant.id_of(tenant))
            if active:
                changed.resume(at=self._clock())
            else:
                changed.suspend(reason=reason, at=self._clock())
            return await self._record(tenant, SYSTEM_USER, changed)

    async def define_role(
        self, *, tenant: str, name: str, inherits: Sequence[str], permissions: Sequence[Permission]
    ) -> int:
        """Returns the revision; raises UnknownRole, RoleCycle or TooManyRoles."""
        async with self._change(tenant) as store:
            roles = await self._roles(store, tenant)
            plain = [permission.model_dump(mode="json") for permission in permissions]
            roles.define(name=name, inherits=inherits, permissions=plain, at=self._clock())
            return await self._record(tenant, SYSTEM_USER, roles)

    async def protect_fields(self, *, tenant: str, source: str, fields: Sequence[str]) -> int:
        """Returns the revision."""
        async with self._change(tenant) as store:
            roles = await self._roles(store, tenant)
            roles.protect_fields(source=source, fields=fields, at=self._clock())
            return await self._record(tenant, SYSTEM_USER, roles)

    async def _roles(self, store: EventStore, tenant: str) -> Roles:
        try:
            return await store.load(Roles, Roles.id_of(tenant))
        except Absent:
            return Roles.establish(tenant_id=tenant, at=self._clock())

    # -- users -----------------------------------------------------------------------------------------------------

    async def register_user(
        self, *, tenant: str, handle: str, email: str | None, name: str | None, roles: Sequence[str]
    ) -> UserRow:
        """Register with these roles, all or nothing; raises HandleTaken or UnknownRole."""
        async with self._change(tenant):
            directory = self._directory.of(tenant)
            if directory.has_handle(handle):
                raise HandleTaken(tenant=tenant, handle=handle)
            user_id = user_id_from(self._entropy(ENTROPY_BYTES))
            user = User.register(
                tenant_id=tenant, user_id=user_id, handle=handle, email=email, name=name, at=self._clock()
            )
            for role in roles:
                user.assign_role(role=role, defined_roles=directory.definitions, at=self._clock())
            await self._record(tenant, user_id, user)
            return directory.row(directory.member(user_id))

    async def assign_role(self, *, tenant: str, handle: str, role: str) -> UserRow:
        """Raises Absent for an unknown user, UnknownRole for an undefined role."""
        defined = self._directory.of(tenant).definitions
        return await self._change_user(
            tenant, handle, lambda user: user.assign_role(role=role, defined_roles=defined, at=self._clock())
        )

    async def remove_role(self, *, tenant: str, handle: str, role: str) -> UserRow:
        """Raises Absent for an unknown user, RoleNotHeld for a role that the user does not hold."""
        return await self._change_user(tenant, handle, lambda user: user.remove_role(role=role, at=self._clock()))

    async def set_user_active(self, *, tenant: str, handle: str, active: bool, reason: str | None) -> UserActivitySet:
        """Enable, or disable: that ends the user's sessions for ever and cuts the live connections off.

        Raises Absent for an unknown user. What could not be cut off is said in the answer and tried again; disabling
        a disabled user tries at once. When a part of it could not be saved, that is raised once all the rest was done.
        """
        if active:
            row = await self._change_user(tenant, handle, lambda user: user.enable(reason=reason, at=self._clock()))
            return UserActivitySet(**row.model_dump())
        (row, ended), (cut, left) = await self._then_cut_off(tenant, self._disable(tenant, handle, reason))
        return UserActivitySet(**row.model_dump(), sessions_ended=ended, connections_cut=cut, connections_left=left)

    async def _disable(self, tenant: str, handle: str, reason: str | None) -> tuple[UserRow, int]:
        """The user, and how many sessions were ended."""
        async with self._change(tenant) as store:
            directory = self._directory.of(tenant)
            member = directory.find(handle)
            user = await store.load(User, User.id_of(tenant, member.user))
            user.disable(reason=reason, at=self._clock())
            ids = [Session.id_of(tenant, session) for session in directory.sessions_of(member.user)]
            sessions = await asyncio.gather(*(store.load(Session, each) for each in ids))
            for session in sessions:
                session.end(reason=DISABLED, at=self._clock())
            # In this order, so that a disabled user has no session left open.
            await self._save_and_tell(tenant, member.user, user, *sessions)
            return directory.row(member), len(sessions)

    async def _change_user(self, tenant: str, handle: str, change: Callable[[User], None]) -> UserRow:
        async with self._change(tenant) as store:
            directory = self._directory.of(tenant)
            member = directory.find(handle)
            user = await store.load(User, User.id_of(tenant, member.user))
            change(user)
            await self._record(tenant, member.user, user)
            return directory.row(member)

    # -- sessions --------------------------------------------------------------------------------------------------

    async def issue_token(self, *, tenant: str, handle: str, ttl_seconds: int) -> TokenIssued:
        """Open a session, recorded before its token exists; raises Absent, or Inactive."""
        directory = self._directory.of(tenant)
        member = directory.find(handle)
        if not directory.is_active(member):
            raise Inactive(tenant=tenant, handle=handle)
        session_id = session_id_from(self._entropy(ENTROPY_BYTES))
        now = self._clock().replace(microsecond=0)  # a token's times are whole seconds, and so is its session's end
        session = Session.open(
            tenant_id=tenant,
            session_id=session_id,
            user_id=member.user,
            ttl_seconds=ttl_seconds,
            issuer=BUILT_IN_ISSUER,
            at=now,
        )
        await self._store_of(tenant).save(session, user=member.user)
        await self.catch_up(tenant)
        if session_id not in directory.sessions:  # the user was disabled at the same moment
            raise Inactive(tenant=tenant, handle=handle)
        token = self._issuer.issue(
            tenant=tenant,
            user=member.user,
            session=session_id,
            token_id=self._entropy(ENTROPY_BYTES).hex(),
            issued_at=now,
            expires_at=session.expires_at,
        )
        return TokenIssued(token=token, session=session_id, expires_at=session.expires_at)

    async def end_session(self, *, tenant: str, session_id: str, reason: str) -> SessionEnded:
        """End it and cut its connections off; raises Absent for one that is over or never was."""
        ending = self._end_session(tenant, session_id, reason)
        revision, (cut, left) = await self._then_cut_off(tenant, ending)
        return SessionEnded(revision=revision, connections_cut=cut, connections_left=left)

    async def _end_session(self, tenant: str, session_id: str, reason: str) -> int:
        """The revision."""
        async with self._change(tenant) as store:
            known = self._directory.of(tenant).sessions.get(session_id)
            if known is None:
                raise Absent(f"no open session {session_id} in {tenant}")
            session = await store.load(Session, Session.id_of(tenant, session_id))
            session.end(reason=reason, at=self._clock())
            return await self._record(tenant, known.user, session)

    async def _then_cut_off(self, tenant: str, change: Awaitable[T]) -> tuple[T, Cut]:
        """Make a change, then cut off whom it shuts out: also when it failed half-way, as what is on disk holds."""
        try:
            made = await change
        finally:
            cut = await self._cut_off(tenant)
        return made, cut

    # -- recording and reading -------------------------------------------------------------------------------------

    async def rebuild(self, tenants: Iterable[str]) -> None:
        """Read everything from event one, so that questions can be answered; waits for the keys as long as it takes.

        A tenant whose log was tampered with is refused, and holds up no other.
        """
        for tenant in tenants:
            while True:
                try:
                    await self.catch_up(tenant)
                    break
                except Unavailable as fault:
                    structlog.get_logger().info("directory.waiting", tenant=tenant, reason=fault.reason)
                    await asyncio.sleep(RETRY_SECONDS)
                except Tampered as fault:  # half a directory may lack whom it shuts out: this tenant has none
                    structlog.get_logger().error("directory.tampered", tenant=tenant, reason=fault.reason)
                    self._store_of(tenant).condemn(fault.reason)
                    break
        self._directory.complete = True

    async def catch_up(self, tenant: str) -> TenantDirectory:
        """Let the directory read all that is recorded of a tenant."""
        directory, store = self._directory.reading(tenant), self._store_of(tenant)
        async with self._reading[tenant]:
            while envelopes := await store.read(directory.read_to + 1, READ_AT_ONCE):
                # Together, because each user's key may be a question to the credential broker.
                events = await asyncio.gather(*map(store.decode, envelopes), return_exceptions=True)
                for envelope, event in zip(envelopes, events, strict=True):
                    if not isinstance(event, BaseException):
                        directory.read(envelope.notification_id, envelope.user, event)
                    elif isinstance(event, Absent) and event.refusal_code == ERASED:
                        directory.read_erased(envelope.notification_id, envelope.user)
                    else:
                        raise event
        return directory

    @asynccontextmanager
    async def _change(self, tenant: str) -> AsyncIterator[EventStore]:
        """One change at a time, on an up-to-date directory; raises Absent for an unknown tenant."""
        self._directory.of(tenant)
        async with self._changing[tenant]:
            await self.catch_up(tenant)
            yield self._store_of(tenant)

    async def _record(self, tenant: str, user: str, aggregate: Aggregate) -> int:
        """Save, read, tell; returns the revision. Nothing is told when nothing changed."""
        if aggregate.pending_events:
            await self._save_and_tell(tenant, user, aggregate)
        return self._directory.reading(tenant).revision

    async def _save_and_tell(self, tenant: str, user: str, *aggregates: Aggregate) -> None:
        """Save in one transaction, let the directory read it, tell that it has changed; then raise the first failure.

        A save that fails may have been stored, and one of several may fail alone: what is on disk holds all the same.
        """
        store = self._store_of(tenant)
        saving = (store.save(each, user=user) for each in aggregates)  # at the same moment, so they share a transaction
        try:
            saved = await asyncio.gather(*saving, return_exceptions=True)
        finally:
            await self._tell(tenant, user)
        for failure in saved:
            if isinstance(failure, BaseException):
                raise failure

    async def _tell(self, tenant: str, user: str) -> None:
        """Read what was saved, and tell that the directory has changed."""
        directory = await self.catch_up(tenant)
        await self._notify(tenant, user, directory.revision)
