"""`remit tenants`: at the machine, as its installer."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from remit.cli.installation import as_installer
from remit.cli.output import emit, pairs, table
from remit.cli.shutting_out import show
from remit_contracts.identity import PLATFORM_TENANT, label

app = App(name="tenants", help="Tenants.")


@app.command(name="list")
def list_() -> None:
    """All tenants."""
    rows = as_installer(lambda office: office.ask(PLATFORM_TENANT, "auth", "list-tenants"))["tenants"]
    emit(rows, lambda: table(["tenant"], [(row["tenant"] if isinstance(row, dict) else row,) for row in rows]))


@app.command
def create(tenant: str, /) -> None:
    """Create a tenant: its stream first, then its directory with the default roles."""
    from remit.cli.seeding import create_tenant

    answer = as_installer(lambda office: create_tenant(office, tenant))
    emit(answer, lambda: pairs(answer))


@app.command
def suspend(tenant: str, /) -> int:
    """Shut all users of a tenant out until it is resumed: every live connection of theirs is cut off.

    Exits 1 when a connection could not be cut off yet; the tenant is suspended all the same, and cutting goes on.
    """
    return show(_set_active(tenant, active=False), f"{tenant} is suspended")


@app.command
def resume(tenant: str, /) -> None:
    """Let the users of a suspended tenant in again; sessions that have not ended are good again."""
    answer = _set_active(tenant, active=True)
    emit(answer, lambda: pairs(answer))


def _set_active(tenant: str, *, active: bool) -> dict[str, Any]:
    label(tenant, kind="tenant")
    return as_installer(lambda office: office.ask(tenant, "auth", "set-tenant-active", {"active": active}))
