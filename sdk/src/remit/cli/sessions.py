"""`remit token` and `remit whoami`."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

from cyclopts import Parameter

from remit.cli.installation import DEFAULT_TTL_SECONDS, acting_as, installer
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

    async def issue() -> str:
        async with installer() as office:
            return await office.token(Handle.parse(user), ttl)

    issued = asyncio.run(issue())
    emit({"token": issued}, lambda: print(issued, file=sys.stdout))


def whoami(*, as_: Annotated[str | None, Parameter(name="--as")] = None, token: str | None = None) -> None:
    """Show who a token speaks for, and the prefixes it may use.

    Parameters
    ----------
    as_
        TENANT/HANDLE, at the machine.
    token
        A session token (REMIT_TOKEN).
    """

    async def ask() -> dict[str, object]:
        async with acting_as(as_, token) as client:
            return await client.whoami()

    answer = asyncio.run(ask())
    emit(answer, lambda: pairs(answer))
