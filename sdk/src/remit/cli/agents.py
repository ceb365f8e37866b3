"""`remit agents`: which agents one may run."""

from __future__ import annotations

from cyclopts import App

from remit.cli.installation import As, Token, as_user
from remit.cli.output import emit, table

app = App(name="agents", help="Agents.")


@app.command(name="list")
def list_(*, as_: As = None, token: Token = None) -> None:
    """The tenant's agents, with their tools and model."""
    rows = as_user(as_, token, lambda client: client.command("agent-runtime", "list-agents"))["agents"]
    emit(
        rows,
        lambda: table(
            ["agent", "model", "tools", "digest"],
            [(r["name"], r["model"], ", ".join(r["tools"]), str(r["digest"])[:12]) for r in rows],
        ),
    )
