"""The directory as it is asked: in memory, rebuilt from event one, the same whichever way it was built.

    NotSignedIn
    +-- NotAdmitted     auth.not_signed_in   `reason` says which of tenant, user and session does not stand, for the log
    +-- SessionOver     auth.session_ended   the same, for a service that asked about a session

One `TenantDirectory` per tenant reads that tenant's events in the order of their notification ids. It knows no clock: a
session that has run out is dropped when a later one is opened, by the events' own instants.
"""

from __future__ import annotations

import heapq
import json
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from remit_auth.domain import Session, Tenant, User
from remit_auth.roles import Roles, closure
from remit_contracts.directory import USER_ID_PREFIX, RoleDefinition, UserRow
from remit_contracts.errors import Absent, NotSignedIn, Unavailable
from remit_contracts.identity import Caller


class NotAdmitted(NotSignedIn):
    """A token in order, of somebody who is not, or no longer, let in."""


class SessionOver(NotSignedIn):
    """What a client calls its session is none, or none any more."""

    code = "auth.session_ended"


@dataclass(slots=True)
class Member:
    """A user of a tenant; `roles` are those assigned."""

    user: str
    handle: str
    active: bool = True
    roles: set[str] = field(default_factory=set)


class OpenSession(NamedTuple):
    """A session that nobody has ended."""

    user: str
    expires_at: datetime


class TenantDirectory:
    """One tenant's users, roles and sessions.

    `read_to` is the last notification id that was read, `revision` the last that changed anything but sessions.
    """

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.known = False
        self.active = False
        self.read_to = 0
        self.revision = 0
        self.members: dict[str, Member] = {}
        self.definitions: dict[str, dict[str, Any]] = {}
        self.closure: dict[str, tuple[str, ...]] = {}
        self.protected_fields: dict[str, tuple[str, ...]] = {}
        self.sessions: dict[str, OpenSession] = {}
        self._handles: dict[str, str] = {}
        self._handles_in_order: list[str] = []
        self._expiries: list[tuple[datetime, str]] = []

    # -- reading events --------------------------------------------------------------------------------------------

    def read(self, notification_id: int, user: str, event: Any) -> None:
        """Take in the next event, which the record says is about `user`; one that was read already changes nothing."""
        if notification_id <= self.read_to:
            return
        self.read_to = notification_id
        if isinstance(event, (Session.Opened, Session.Ended)):
            self._read_session(event)
        else:
            self.revision = notification_id
            self._read_change(user, event)

    def read_erased(self, notification_id: int, user: str) -> None:
        """Take in an event that nobody can read any more, because the user's key is destroyed: so the user is gone."""
        if notification_id <= self.read_to:
            return
        self.read_to = self.revision = notification_id
        member = self.members.pop(user, None)
        if member and self._handles.get(member.handle) == user:
            del self._handles[member.handle]
            self._handles_in_order.remove(member.handle)

    def _read_change(self, user: str, event: Any) -> None:
        member = self.members.get(user)
        match event:
            case Tenant.Created():
                self.known = self.active = True
            case Tenant.Suspended():
                self.active = False
            case Tenant.Resumed():
                self.active = True
            case Roles.RoleDefined():
                self.definitions[event.name] = {"inherits": event.inherits, "permissions": event.permissions}
                self.closure = closure({name: known["inherits"] for name, known in self.definitions.items()})
            case Roles.FieldsProtected():
                self.protected_fields.pop(event.source, None)
                if event.fields:
                    self.protected_fields[event.source] = tuple(event.fields)
            case User.Registered():
                self._register(user, event.handle)
            case User.RoleAssigned() if member:
                member.roles.add(event.role)
            case User.RoleRemoved() if member:
                member.roles.discard(event.role)
            case User.Disabled() if member:
                member.active = False
                # Whether or not their ends were recorded too: no token from before is good again after an `enable`.
                for session in self.sessions_of(user):
                    del self.sessions[session]
            case User.Enabled() if member:
                member.active = True

    def _register(self, user: str, handle: str) -> None:
        self.members[user] = Member(user, handle)
        # Two processes may have taken a handle at the same moment: the first in the record has it, in every copy.
        if self._handles.setdefault(handle, user) == user:
            insort(self._handles_in_order, handle)

    def _read_session(self, event: Session.Opened | Session.Ended) -> None:
        if isinstance(event, Session.Ended):
            self.sessions.pop(event.session_id, None)
            return
        member = self.members.get(event.user_id)
        if member and not member.active:
            return  # opened while the user was being disabled
        while self._expiries and self._expiries[0][0] <= event.timestamp:
            self.sessions.pop(heapq.heappop(self._expiries)[1], None)
        opened = OpenSession(event.user_id, event.timestamp + timedelta(seconds=event.ttl_seconds))
        self.sessions[event.session_id] = opened
        heapq.heappush(self._expiries, (opened.expires_at, event.session_id))

    # -- questions -------------------------------------------------------------------------------------------------

    def member(self, user: str) -> Member:
        """By id; raises Absent."""
        if user not in self.members:
            raise Absent(f"no user {user} in {self.tenant}")
        return self.members[user]

    def find(self, handle: str) -> Member:
        """By handle, or by id (no handle looks like one); raises Absent."""
        if handle.startswith(USER_ID_PREFIX):
            return self.member(handle)
        if handle not in self._handles:
            raise Absent(f"no user {self.tenant}/{handle}")
        return self.members[self._handles[handle]]

    def sessions_of(self, user: str) -> list[str]:
        """Ids of the user's sessions that nobody has ended."""
        return [session for session, opened in self.sessions.items() if opened.user == user]

    def has_handle(self, handle: str) -> bool:
        """Whether the handle is taken; a disabled user keeps it."""
        return handle in self._handles

    def page(self, after: str | None, limit: int) -> list[Member]:
        """Members in the order of their handles."""
        begin = bisect_right(self._handles_in_order, after) if after else 0
        return [self.find(handle) for handle in self._handles_in_order[begin : begin + limit]]

    def is_active(self, member: Member) -> bool:
        """Whether the user may act at all: enabled, in a tenant that is not suspended."""
        return self.active and member.active

    def row(self, member: Member) -> UserRow:
        """The user as others are told."""
        return UserRow(
            tenant=self.tenant,
            user=member.user,
            handle=member.handle,
            active=self.is_active(member),
            roles=tuple(sorted(member.roles)),
        )

    def definitions_as_told(self) -> dict[str, RoleDefinition]:
        """The roles as others are told."""
        return {name: RoleDefinition.model_validate_json(json.dumps(it)) for name, it in self.definitions.items()}

    def holders(self) -> dict[str, int]:
        """How many users hold each role directly."""
        held = Counter(role for member in self.members.values() for role in member.roles)
        return {name: held[name] for name in self.definitions}


class Directory:
    """All tenants. Until every one of them was read (`complete`), each question raises Unavailable.

    `contradiction(tenant)` says what is wrong with that tenant's log, or "": nobody is let in on its word.
    """

    def __init__(self, contradiction: Callable[[str], str] = lambda tenant: "") -> None:
        self.complete = False
        self._contradiction = contradiction
        self._tenants: dict[str, TenantDirectory] = {}

    def of(self, tenant: str) -> TenantDirectory:
        """A tenant's directory; raises Absent for one that was never created."""
        self._require_completeness()
        directory = self._tenants.get(tenant)
        if directory is None or not directory.known:
            raise Absent(f"no tenant {tenant}")
        return directory

    def reading(self, tenant: str) -> TenantDirectory:
        """The directory that a tenant's events are read into, made when there is none."""
        return self._tenants.setdefault(tenant, TenantDirectory(tenant))

    def __iter__(self) -> Iterator[TenantDirectory]:
        self._require_completeness()
        return iter(sorted((d for d in self._tenants.values() if d.known), key=lambda d: d.tenant))

    def admit(self, caller: Caller) -> Member:
        """The user behind a session that stands; raises NotAdmitted. Memory only: the callout waits for no disk."""
        self._require_completeness()
        if self._contradiction(caller.tenant):
            raise NotAdmitted("the tenant's log is contradicted")
        directory = self._tenants.get(caller.tenant)
        if directory is None or not directory.known:
            raise NotAdmitted("the tenant is unknown")
        if not directory.active:
            raise NotAdmitted("the tenant is suspended")
        member = directory.members.get(caller.user)
        if member is None:
            raise NotAdmitted("the user is unknown")
        if not member.active:
            raise NotAdmitted("the user is disabled")
        session = directory.sessions.get(caller.session)
        if session is None or session.user != caller.user:
            raise NotAdmitted("the session has ended, or was never this user's")
        return member

    def standing(self, caller: Caller, *, at: datetime) -> OpenSession:
        """The caller's session, while it stands and has not run out; raises SessionOver. Memory only."""
        try:
            self.admit(caller)
        except NotAdmitted as refusal:
            raise SessionOver(refusal.reason) from None
        session = self._tenants[caller.tenant].sessions[caller.session]
        if session.expires_at <= at:
            raise SessionOver("the session has run out")
        return session

    def _require_completeness(self) -> None:
        if not self.complete:
            raise Unavailable("the directory is still being read: try again", retry_after_seconds=1.0)
