"""`remit roles`: a tenant's role hierarchy and what each role may do."""

from __future__ import annotations

from typing import Any

from cyclopts import App
from rich.tree import Tree

from remit.cli.installation import Installer, as_installer
from remit.cli.output import emit, inert, out, table
from remit_contracts.identity import PLATFORM_TENANT

app = App(name="roles", help="Roles of a tenant.")


def _described(tenant: str) -> dict[str, Any]:
    return as_installer(lambda office: office.ask(tenant, "auth", "describe-tenant"))


@app.command(name="list")
def list_(tenant: str, /) -> None:
    """Roles, what each inherits, and how many permissions it adds."""
    roles = _described(tenant)["roles"]
    emit(
        roles,
        lambda: table(
            ["role", "inherits", "permissions"],
            [(name, ", ".join(role["inherits"]), len(role["permissions"])) for name, role in sorted(roles.items())],
        ),
    )


@app.command
def tree(tenant: str | None = None, /) -> None:
    """The hierarchy: each role above those that it inherits from, with the permissions that it adds.

    As JSON a tenant is `{"tenant", "roles", "closure"}`; all of them are `{"tenants": [...]}`, each like that.

    Parameters
    ----------
    tenant
        One tenant; all tenants without it.
    """
    if tenant is not None:
        one = _hierarchy(tenant, _described(tenant))
        emit(one, lambda: _draw(one))
        return

    async def every(office: Installer) -> list[dict[str, Any]]:
        names = [row["tenant"] for row in (await office.ask(PLATFORM_TENANT, "auth", "list-tenants"))["tenants"]]
        return [_hierarchy(name, await office.ask(name, "auth", "describe-tenant")) for name in sorted(names)]

    found = as_installer(every)

    def draw() -> None:
        for one in found:
            _draw(one)

    emit({"tenants": found}, draw)


def _hierarchy(tenant: str, described: dict[str, Any]) -> dict[str, Any]:
    return {"tenant": tenant, "roles": described["roles"], "closure": described["closure"]}


def _draw(hierarchy: dict[str, Any]) -> None:
    roles = hierarchy["roles"]

    def grow(branch: Tree, name: str) -> None:
        node = branch.add(inert(name))
        for permission in roles[name]["permissions"]:
            node.add(inert(f"{permission['action']} {permission['type']}:{permission['id']}"), style="dim")
        for parent in roles[name]["inherits"]:
            grow(node, parent)

    inherited = {parent for role in roles.values() for parent in role["inherits"]}
    root = Tree(inert(hierarchy["tenant"]))
    for name in sorted(set(roles) - inherited):
        grow(root, name)
    out.print(root)
