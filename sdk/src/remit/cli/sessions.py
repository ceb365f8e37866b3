"""`remit token` and `remit whoami`."""

from __future__ import annotations

from remit.cli.installation import DEFAULT_TTL_SECONDS, As, Token, as_installer, as_user
from remit.cli.output import emit, pairs
from remit_contracts.identity import Handle


def token(user: str, /, *, ttl: int = DEFAULT_TTL_SECONDS) -> None:
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
