"""`remit leases`: which credentials were lent, to which run, for how long."""

from __future__ import annotations

from cyclopts import App

from remit.cli.installation import As, Token, as_user
from remit.cli.output import emit, styled, table

app = App(name="leases", help="Leases of credentials.")


@app.command(name="list")
def list_(*, as_: As = None, token: Token = None) -> None:
    """One's own leases."""
    rows = as_user(as_, token, lambda client: client.command("credential-broker", "list-leases"))["leases"]
    emit(
        rows,
        lambda: table(
            ["lease", "connection", "tool", "run", "status", "expires"],
            [(r["lease_id"], r["connection"], r["tool"], r["run"], styled(r["status"]), r["expires_at"]) for r in rows],
        ),
    )
