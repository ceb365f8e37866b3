"""`remit roles`: a tenant's role hierarchy and what each role may do."""

from __future__ import annotations

from typing import Any

from cyclopts import App
from rich.tree import Tree

from remit.cli.installation import as_installer
from remit.cli.output import emit, inert, out, table

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
def tree(tenant: str, /) -> None:
    """The hierarchy: each role above those that it inherits from, with the permissions that it adds."""
    described = _described(tenant)
    roles = described["roles"]

    def grow(branch: Tree, name: str) -> None:
        node = branch.add(inert(name))
        for permission in roles[name]["permissions"]:
            node.add(inert(f"{permission['action']} {permission['type']}:{permission['id']}"), style="dim")
        for parent in roles[name]["inherits"]:
            grow(node, parent)

    def draw() -> None:
        inherited = {parent for role in roles.values() for parent in role["inherits"]}
        root = Tree(inert(tenant))
        for name in sorted(set(roles) - inherited):
            grow(root, name)
        out.print(root)

    emit({"tenant": tenant, "roles": roles, "closure": described["closure"]}, draw)
