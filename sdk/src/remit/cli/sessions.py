"""`remit token`, `remit whoami` and `remit sessions`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from remit.cli.installation import DEFAULT_TTL_SECONDS, As, Token, as_installer, as_user
from remit.cli.output import emit, pairs
from remit.cli.shutting_out import show
from remit_contracts.directory import MAX_TOKEN_SECONDS
from remit_contracts.identity import Handle, label

Ttl = Annotated[int, Parameter(validator=Number(gte=1, lte=MAX_TOKEN_SECONDS))]

app = App(name="sessions", help="Sessions of users.")


def token(user: str, /, *, ttl: Ttl = DEFAULT_TTL_SECONDS) -> None:
    """Print a session token of the built-in issuer: a NATS auth_token and an HTTP bearer alike.

    Parameters
    ----------
    user
        TENANT/HANDLE.
    ttl
        Seconds until it expires.
    """
    handle = Handle.parse(user)
    issued = as_installer(lambda office: office.token(handle, ttl))
    emit({"token": issued}, lambda: print(issued))


def whoami(*, as_: As = None, token: Token = None) -> None:
    """Show who a token speaks for, and the prefixes it may use."""
    answer = as_user(as_, token, lambda client: client.whoami())
    emit(answer, lambda: pairs(answer))


@app.command
def end(tenant: str, session: str, /) -> int:
    """End a session of a tenant's user for ever: its token is refused from here on, its live connections are cut off.

    Exits 1 when a connection could not be cut off yet; the session has ended all the same, and cutting goes on.

    Parameters
    ----------
    tenant
        The user's tenant.
    session
        Its id, as `remit whoami` shows it.
    """
    label(tenant, kind="tenant")
    answer = as_installer(lambda office: office.ask(tenant, "auth", "end-session", {"session": session}))
    return show(answer, f"session {session} of {tenant} has ended")
