"""`remit tenants`: at the machine, as its installer."""

from __future__ import annotations

from cyclopts import App

from remit.cli.installation import as_installer
from remit.cli.output import emit, pairs, table
from remit_contracts.identity import PLATFORM_TENANT

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
