"""`remit users`: list, register, disable, enable, and their roles. At the machine, as its installer."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from remit.cli.installation import as_installer
from remit.cli.output import emit, pairs, styled, table
from remit.cli.shutting_out import show
from remit_contracts.identity import Handle

app = App(name="users", help="Users of a tenant.")


@app.command(name="list")
def list_(tenant: str, /) -> None:
    """Users of a tenant, with their roles."""
    users = as_installer(lambda office: office.ask(tenant, "auth", "list-users"))["users"]
    emit(
        users,
        lambda: table(
            ["handle", "user", "active", "roles"],
            [
                (u["handle"], u["user"], styled("ok" if u["active"] else "stopped"), ", ".join(u["roles"]))
                for u in users
            ],
        ),
    )


@app.command
def register(user: str, /, *, role: list[str] | None = None) -> None:
    """Add TENANT/HANDLE with these roles, or not at all when one of them is not defined."""
    who = Handle.parse(user)
    asked = {"handle": who.handle, "roles": role or []}
    answer = as_installer(lambda office: office.ask(who.tenant, "auth", "register-user", asked))
    emit(answer, lambda: pairs(answer))


@app.command
def disable(user: str, /) -> int:
    """Shut TENANT/HANDLE out: every session ends for ever, and every live connection is cut off.

    Exits 1 when a connection could not be cut off yet; the user is disabled all the same, and cutting goes on.
    """
    return show(_set_active(user, active=False), f"{user} is disabled")


@app.command
def enable(user: str, /) -> None:
    """Let TENANT/HANDLE in again, with new tokens: those from before stay refused."""
    answer = _set_active(user, active=True)
    emit(answer, lambda: pairs(answer))


@app.command
def assign(user: str, role: str, /) -> None:
    """Give TENANT/HANDLE a role."""
    _role("assign-role", user, role)


@app.command
def remove(user: str, role: str, /) -> None:
    """Take a role from TENANT/HANDLE."""
    _role("remove-role", user, role)


def _set_active(user: str, *, active: bool) -> dict[str, Any]:
    who = Handle.parse(user)
    return as_installer(
        lambda office: office.ask(who.tenant, "auth", "set-user-active", {"handle": who.handle, "active": active})
    )


def _role(verb: str, user: str, role: str) -> None:
    who = Handle.parse(user)
    answer = as_installer(lambda office: office.ask(who.tenant, "auth", verb, {"handle": who.handle, "role": role}))
    emit(answer, lambda: pairs(answer))
