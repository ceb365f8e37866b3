"""Message in, one use case, answer out.

What is done for `system` comes from the installer: the bus lets nobody else ask these verbs, and the subject's user is
checked here too, so that a service which was given too much could still change no directory in a user's name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from remit_auth.application import Accounts
from remit_auth.projections import Directory
from remit_chassis.service import Service
from remit_contracts import directory as messages
from remit_contracts import subjects
from remit_contracts.errors import Denied
from remit_contracts.identity import PLATFORM_TENANT, SYSTEM_USER, Caller
from remit_contracts.messages import Command, Nothing

C = TypeVar("C", bound=Command)
Handler = Callable[[C, Caller], Awaitable[Any]]


def register(service: Service, accounts: Accounts, directory: Directory) -> None:
    """Add every verb of the auth service."""
    _register_questions(service, directory)
    _register_tenants_and_roles(service, accounts)
    _register_users_and_sessions(service, accounts)


def _register_questions(service: Service, directory: Directory) -> None:
    @service.command("whoami", Nothing)
    async def whoami(_: Nothing, caller: Caller) -> messages.Identity:
        member = directory.admit(caller)
        return messages.Identity(
            tenant=caller.tenant,
            user=caller.user,
            session=caller.session,
            handle=member.handle,
            roles=tuple(sorted(member.roles)),
            inbox_prefix=subjects.user_inbox(caller),
            command_prefix=subjects.command_prefix(caller.tenant, caller.user),
        )

    @service.rpc("describe-subject", Nothing)
    async def describe_subject(_: Nothing, caller: Caller) -> messages.SubjectDescribed:
        tenant = directory.of(caller.tenant)
        row = tenant.row(tenant.member(caller.user))
        return messages.SubjectDescribed(
            user=row.user, handle=row.handle, active=row.active, roles=row.roles, revision=tenant.revision
        )

    @service.rpc("describe-session", messages.DescribeSession)
    async def describe_session(command: messages.DescribeSession, caller: Caller) -> messages.SessionDescribed:
        claimed = Caller(caller.tenant, caller.user, command.session)
        session = directory.standing(claimed, at=service.clock())
        return messages.SessionDescribed(session=command.session, expires_at=session.expires_at)

    @_for_system(service, "describe-tenant", Nothing)
    async def describe_tenant(_: Nothing, caller: Caller) -> messages.TenantDescribed:
        tenant = directory.of(caller.tenant)
        return messages.TenantDescribed(
            revision=tenant.revision,
            active=tenant.active,
            roles=tenant.definitions_as_told(),
            closure=tenant.closure,
            protected_fields=tenant.protected_fields,
        )

    @_for_system(service, "resolve", messages.Resolve)
    async def resolve(command: messages.Resolve, caller: Caller) -> messages.UserRow:
        tenant = directory.of(caller.tenant)
        return tenant.row(tenant.find(command.handle))

    @_for_system(service, "list-users", messages.ListUsers)
    async def list_users(command: messages.ListUsers, caller: Caller) -> messages.UsersListed:
        tenant = directory.of(caller.tenant)
        page = tenant.page(command.after, command.limit)
        more = len(page) == command.limit and tenant.page(page[-1].handle, 1)
        return messages.UsersListed(
            users=tuple(tenant.row(member) for member in page), next=page[-1].handle if more else None
        )

    @_for_system(service, "list-roles", Nothing)
    async def list_roles(_: Nothing, caller: Caller) -> messages.RolesListed:
        tenant = directory.of(caller.tenant)
        return messages.RolesListed(
            roles=tenant.definitions_as_told(), closure=tenant.closure, members=tenant.holders()
        )

    @_for_system(service, "list-tenants", Nothing)
    async def list_tenants(_: Nothing, caller: Caller) -> messages.TenantsListed:
        if caller.tenant != PLATFORM_TENANT:
            raise Denied(f"tenants are listed for the tenant {PLATFORM_TENANT} only")
        rows = (messages.TenantRow(tenant=t.tenant, active=t.active, users=len(t.members)) for t in directory)
        return messages.TenantsListed(tenants=tuple(rows))


def _register_tenants_and_roles(service: Service, accounts: Accounts) -> None:
    @_for_system(service, "create-tenant", messages.CreateTenant)
    async def create_tenant(command: messages.CreateTenant, caller: Caller) -> messages.DirectoryChanged:
        revision = await accounts.create_tenant(tenant=caller.tenant, name=command.name)
        return messages.DirectoryChanged(revision=revision)

    @_for_system(service, "set-tenant-active", messages.SetTenantActive)
    async def set_tenant_active(command: messages.SetTenantActive, caller: Caller) -> messages.TenantActivitySet:
        return await accounts.set_tenant_active(tenant=caller.tenant, active=command.active, reason=command.reason)

    @_for_system(service, "define-role", messages.DefineRole)
    async def define_role(command: messages.DefineRole, caller: Caller) -> messages.DirectoryChanged:
        revision = await accounts.define_role(
            tenant=caller.tenant, name=command.name, inherits=command.inherits, permissions=command.permissions
        )
        return messages.DirectoryChanged(revision=revision)

    @_for_system(service, "protect-fields", messages.ProtectFields)
    async def protect_fields(command: messages.ProtectFields, caller: Caller) -> messages.DirectoryChanged:
        revision = await accounts.protect_fields(tenant=caller.tenant, source=command.source, fields=command.fields)
        return messages.DirectoryChanged(revision=revision)


def _register_users_and_sessions(service: Service, accounts: Accounts) -> None:
    @_for_system(service, "register-user", messages.RegisterUser)
    async def register_user(command: messages.RegisterUser, caller: Caller) -> messages.UserRow:
        return await accounts.register_user(
            tenant=caller.tenant,
            handle=command.handle,
            email=command.email,
            name=command.name,
            roles=command.roles,
        )

    @_for_system(service, "set-user-active", messages.SetUserActive)
    async def set_user_active(command: messages.SetUserActive, caller: Caller) -> messages.UserActivitySet:
        return await accounts.set_user_active(
            tenant=caller.tenant, handle=command.handle, active=command.active, reason=command.reason
        )

    @_for_system(service, "assign-role", messages.AssignRole)
    async def assign_role(command: messages.AssignRole, caller: Caller) -> messages.UserRow:
        return await accounts.assign_role(tenant=caller.tenant, handle=command.handle, role=command.role)

    @_for_system(service, "remove-role", messages.RemoveRole)
    async def remove_role(command: messages.RemoveRole, caller: Caller) -> messages.UserRow:
        return await accounts.remove_role(tenant=caller.tenant, handle=command.handle, role=command.role)

    @_for_system(service, "issue-token", messages.IssueToken)
    async def issue_token(command: messages.IssueToken, caller: Caller) -> messages.TokenIssued:
        return await accounts.issue_token(tenant=caller.tenant, handle=command.handle, ttl_seconds=command.ttl_seconds)

    @_for_system(service, "end-session", messages.EndSession)
    async def end_session(command: messages.EndSession, caller: Caller) -> messages.SessionEnded:
        return await accounts.end_session(tenant=caller.tenant, session_id=command.session, reason=command.reason)


def _for_system(service: Service, verb: str, model: type[C]) -> Callable[[Handler[C]], Handler[C]]:
    def decorate(handler: Handler[C]) -> Handler[C]:
        async def guarded(command: C, caller: Caller) -> Any:
            if caller.user != SYSTEM_USER:
                raise Denied(f"{verb} is asked for the user {SYSTEM_USER} only")
            return await handler(command, caller)

        return service.rpc(verb, model)(guarded)

    return decorate
