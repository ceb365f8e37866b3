"""Who exists and what their roles allow: the commands to the auth service and its answers.

The subject's tenant is the tenant that a command is about, `create-tenant` included; its user is whom a question is
about, and `system` for all that the installer does at the machine (`list-tenants` comes on the tenant `platform`).

    verb                  command          answer              subject's user
    cmd whoami            Nothing          Identity            the caller
    rpc describe-subject  Nothing          SubjectDescribed    whom it is about
    rpc describe-session  DescribeSession  SessionDescribed    whose it is
    rpc describe-tenant   Nothing          TenantDescribed     system
    rpc resolve           Resolve          UserRow             system
    rpc issue-token       IssueToken       TokenIssued         system
    rpc end-session       EndSession       SessionEnded        system
    rpc create-tenant     CreateTenant     DirectoryChanged    system
    rpc set-tenant-active SetTenantActive  TenantActivitySet   system
    rpc register-user     RegisterUser     UserRow             system
    rpc set-user-active   SetUserActive    UserActivitySet     system
    rpc assign-role       AssignRole       UserRow             system
    rpc remove-role       RemoveRole       UserRow             system
    rpc define-role       DefineRole       DirectoryChanged    system
    rpc protect-fields    ProtectFields    DirectoryChanged    system
    rpc list-users        ListUsers        UsersListed         system
    rpc list-roles        Nothing          RolesListed         system
    rpc list-tenants      Nothing          TenantsListed       system

After every change the service says `DirectoryNotice` on `remit.{tenant}.{user or system}.live.directory`.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from remit_contracts.errors import MalformedIdentifier
from remit_contracts.identity import SYSTEM_USER, Label, label
from remit_contracts.messages import Answer, Command, Fact

USER_ID_PREFIX = "u-"
SESSION_ID_PREFIX = "s-"
MAX_TOKEN_SECONDS = 30 * 86_400

_ACTION = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z][a-z0-9_-]*)*(?:\.\*)?", re.ASCII)
_TYPE = re.compile(r"[a-z][a-z0-9_-]*|\*", re.ASCII)
_RESOURCE = re.compile(r"\*|[A-Za-z0-9][A-Za-z0-9._/-]*(?::[A-Za-z0-9._/-]+)*(?::\*)?", re.ASCII)
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def handle(value: str) -> str:
    """A handle as it stands; raises MalformedIdentifier for what is no label, or could be taken for a user id."""
    if label(value, kind="handle").startswith(USER_ID_PREFIX) or value == SYSTEM_USER:
        raise MalformedIdentifier(kind="handle (neither 'system' nor beginning with 'u-')", value=value)
    return value


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"is no {what}")
        return value

    return AfterValidator(check)


UserHandle = Annotated[str, AfterValidator(handle)]
Action = Annotated[str, Field(max_length=64), _matching(_ACTION, "action such as tool.call, or family such as role.*")]
ResourceType = Annotated[str, Field(max_length=64), _matching(_TYPE, "resource type such as tool, or *")]
ResourceId = Annotated[str, Field(max_length=128), _matching(_RESOURCE, "resource id: exact, prefix:* or *")]
FieldName = Annotated[str, Field(max_length=64), _matching(_FIELD, "field name")]
Text = Annotated[str, Field(min_length=1, max_length=200)]


class RowFilter(BaseModel):
    """Only rows whose `column` holds one of `values` (`eq`: the only one)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    column: FieldName
    op: Literal["in", "eq"]
    values: Annotated[tuple[str | int, ...], Field(min_length=1, max_length=200)]


class Permission(BaseModel):
    """What a role allows: an action on resources of a type, perhaps within bounds.

    `id` is exact, `*`, or `prefix:*`; an `action` may be a family (`role.*`). `fields` unmasks (action `field.read`).
    Readers refuse an unknown field too, because a bound that is not understood would widen the permission.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    action: Action
    type: ResourceType
    id: ResourceId
    max_rows: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    row_filter: RowFilter | None = None
    fields: Annotated[tuple[FieldName, ...], Field(min_length=1, max_length=200)] | None = None

    @model_serializer(mode="wrap")
    def _without_absent_bounds(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class RoleDefinition(BaseModel):
    """A role: what it inherits and what it adds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    inherits: Annotated[tuple[Label, ...], Field(max_length=50)] = ()
    permissions: Annotated[tuple[Permission, ...], Field(max_length=500)] = ()


# -- commands ----------------------------------------------------------------------------------------------------------


class Resolve(Command):
    """Look up a user by handle or by user id; no handle can look like an id."""

    handle: Label


class DescribeSession(Command):
    """Is this an open session of the subject's user? Refused as `auth.session_ended` when it is none."""

    session: Label


class IssueToken(Command):
    """Open a session for a user and sign a token for it (built-in issuer only)."""

    handle: UserHandle
    ttl_seconds: Annotated[int, Field(ge=1, le=MAX_TOKEN_SECONDS)] = 3600


class EndSession(Command):
    """End a session: its connections are cut off, and its token opens none any more."""

    session: Label
    reason: Text = "ended by the operator"


class CreateTenant(Command):
    """Create the tenant that the subject names. Its id is never used again."""

    name: Text | None = None


class SetTenantActive(Command):
    """Suspend the subject's tenant, which cuts its users off, or resume it."""

    active: bool
    reason: Text | None = None


class RegisterUser(Command):
    """Register a user under a free handle; the service chooses the id."""

    handle: UserHandle
    roles: Annotated[tuple[Label, ...], Field(max_length=50)] = ()
    email: Text | None = None
    name: Text | None = None


class SetUserActive(Command):
    """Enable a user, or disable: sessions end for ever and live connections are cut off."""

    handle: UserHandle
    active: bool
    reason: Text | None = None


class AssignRole(Command):
    """Give a user a defined role."""

    handle: UserHandle
    role: Label


class RemoveRole(Command):
    """Take a role from a user."""

    handle: UserHandle
    role: Label


class DefineRole(RoleDefinition, Command):
    """Define a role, or define it anew. What it inherits must be defined and must not lead back to it."""

    name: Label


class ProtectFields(Command):
    """The fields of a source that are masked without `field.read`: replaces the list; an empty one protects none."""

    source: Label
    fields: Annotated[tuple[FieldName, ...], Field(max_length=500)]


class ListUsers(Command):
    """Users in the order of their handles, `limit` at a time, those after the handle `after`."""

    after: UserHandle | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 200


# -- answers -----------------------------------------------------------------------------------------------------------


class Identity(Answer):
    """Who the caller is. The prefixes are ready to use, without a trailing dot."""

    tenant: str
    user: str
    session: str
    handle: str
    roles: tuple[str, ...]
    inbox_prefix: str
    command_prefix: str


class SubjectDescribed(Answer):
    """A user as policy sees it: `roles` are those assigned; `active` is false also when the tenant is suspended."""

    user: str
    handle: str
    active: bool
    roles: tuple[str, ...]
    revision: int


class SessionDescribed(Answer):
    """An open session, of an enabled user in a tenant that is not suspended, until then at the latest."""

    session: str
    expires_at: datetime


class TenantDescribed(Answer):
    """A tenant's roles. `closure` gives, per role, itself and all that it inherits, sorted.

    `revision` is the notification id of the tenant's last directory change, and grows with every one.
    """

    revision: int
    active: bool
    roles: dict[str, RoleDefinition]
    closure: dict[str, tuple[str, ...]]
    protected_fields: dict[str, tuple[str, ...]]


class UserRow(Answer):
    """A user in the directory."""

    tenant: str
    user: str
    handle: str
    active: bool
    roles: tuple[str, ...]


class ConnectionsCut(Answer):
    """What shutting somebody out cut off: it is recorded by then, whatever is left.

    `connections_left` could not be cut off yet and are tried again until they are gone; null when the bus servers do
    not say which there are.
    """

    connections_cut: int = 0
    connections_left: int | None = 0


class UserActivitySet(UserRow, ConnectionsCut):
    """A user who was disabled or enabled, and what disabling ended."""

    sessions_ended: int = 0


class TokenIssued(Answer):
    """A session token, for NATS `auth_token` and HTTP bearer alike."""

    token: str = Field(repr=False)
    session: str
    expires_at: datetime


class DirectoryChanged(Answer):
    """It is recorded, as of this revision."""

    revision: int


class TenantActivitySet(DirectoryChanged, ConnectionsCut):
    """A tenant that was suspended or resumed, and which of its users' connections suspending cut off."""


class SessionEnded(DirectoryChanged, ConnectionsCut):
    """A session that was ended, and which connections that cut off."""


class UsersListed(Answer):
    """One page; `next` is the `after` of the following page, and null on the last."""

    users: tuple[UserRow, ...]
    next: str | None = None


class RolesListed(Answer):
    """A tenant's roles, their closure, and how many users hold each directly."""

    roles: dict[str, RoleDefinition]
    closure: dict[str, tuple[str, ...]]
    members: dict[str, int]


class TenantRow(Answer):
    """A tenant in the directory."""

    tenant: str
    active: bool
    users: int


class TenantsListed(Answer):
    """All tenants."""

    tenants: tuple[TenantRow, ...]


class DirectoryNotice(Fact):
    """Roles or activity changed: what was cached before this revision is stale."""

    revision: int
