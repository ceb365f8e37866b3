"""What a new tenant starts with, and the two tenants of the demo. Everything here may be run again without effect."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

from remit.cli.installation import Installer
from remit.cli.output import say
from remit_contracts.errors import Conflict, Tampered

DEMO_USERS = {
    "acme": {"analyst": "analyst", "operator": "operator", "administrator": "administrator", "reader": "reader"},
    "globex": {"analyst": "analyst", "administrator": "administrator"},
}
"""tenant -> handle -> role."""

DEMO_PROTECTED_FIELDS = {"acme": {"sql": ["tailnum"]}, "globex": {}}
"""tenant -> data source -> columns that only a role with `field.read` sees: a tail number leads to an aircraft's
owner."""


async def create_tenant(office: Installer, tenant: str) -> dict[str, Any]:
    """The tenant's event stream, its ledger, then its directory and roles; raises Conflict when it exists.

    The witness comes before the first event: a tenant that has events and no ledger has lost it.
    """
    from remit_contracts import subjects
    from remit_infra.streams import ensure_stream

    await ensure_stream(office.nc, subjects.events_stream(tenant))
    await office.ask(tenant, "audit", "follow")
    created = await office.ask(tenant, "auth", "create-tenant", {})
    for role in default_roles():
        await office.ask(tenant, "auth", "define-role", role)
    return {"tenant": tenant, "roles": [role["name"] for role in default_roles()], **created}


def default_roles() -> list[dict[str, Any]]:
    """Definitions of `default_roles.toml`, each after those it inherits from."""
    parsed = tomllib.loads(files("remit.cli").joinpath("default_roles.toml").read_text())
    return [{"name": name, "inherits": [], **definition} for name, definition in parsed.items()]


async def seed_demo(office: Installer) -> None:
    """The demo tenants with one user per role; one whose record was tampered with is left as it is."""
    for tenant in DEMO_USERS:
        try:
            await _seed_tenant(office, tenant)
        except Tampered as refusal:  # the other is served all the same
            say(f"{tenant} is not seeded: {refusal.reason}")


async def _seed_tenant(office: Installer, tenant: str) -> None:
    await _unless_there(create_tenant(office, tenant))
    for source, fields in DEMO_PROTECTED_FIELDS[tenant].items():
        await office.ask(tenant, "auth", "protect-fields", {"source": source, "fields": fields})
    for handle, role in DEMO_USERS[tenant].items():
        await _unless_there(office.ask(tenant, "auth", "register-user", {"handle": handle, "roles": [role]}))


async def _unless_there(step: Any) -> None:
    try:
        await step
    except Conflict:
        return
