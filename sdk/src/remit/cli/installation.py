"""The person at the machine: whoever can read the home's secrets may act as its installer, and as its demo users.

The installer's key reaches administration and nothing else; to act as a user, a session token is issued (and
recorded) first.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import orjson
from cyclopts import Parameter

from remit.cli.context import current
from remit.client import Client, connect
from remit_contracts import subjects
from remit_contracts.errors import Absent, NotSignedIn, Unavailable, refusal_from
from remit_contracts.identity import PLATFORM_TENANT, SYSTEM_USER, Handle

DEFAULT_TTL_SECONDS = 3600

T = TypeVar("T")
As = Annotated[str | None, Parameter(name="--as", help="TENANT/HANDLE, at the machine.")]
Token = Annotated[str | None, Parameter(help="A session token (REMIT_TOKEN).")]


def endpoints() -> dict[str, Any]:
    """`endpoints.json` of the running platform; raises Unavailable when there is none."""
    path = current.home / "endpoints.json"
    try:
        found: dict[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise Unavailable(f"nothing runs in {current.home}: start it with `remit up --home {current.home}`") from None
    except (OSError, orjson.JSONDecodeError) as fault:
        raise Unavailable(f"{path} cannot be read: {fault}") from None
    return found


class Installer:
    """Asks services with the installer's key."""

    def __init__(self, nc: Any) -> None:
        self.nc = nc

    async def ask(
        self,
        tenant: str,
        service: str,
        verb: str,
        payload: dict[str, Any] | None = None,
        *,
        user: str = SYSTEM_USER,
        timeout_seconds: float = 10,
    ) -> dict[str, Any]:
        """One rpc for a user of the tenant; raises what the service refuses with, or Unavailable."""
        from nats import errors

        subject = subjects.rpc(tenant, user, service, verb)
        try:
            answer = await self.nc.request(subject, orjson.dumps(payload or {}), timeout=timeout_seconds)
        except errors.NoRespondersError:
            raise Unavailable(f"the {service} service does not answer: see `remit status`") from None
        except errors.TimeoutError:
            raise Unavailable(f"the {service} service did not answer {verb} in {timeout_seconds:g} s") from None
        except (errors.Error, OSError) as fault:
            raise Unavailable(f"the connection to the bus is lost: {fault or type(fault).__name__}") from None
        body: dict[str, Any] = orjson.loads(answer.data)
        if "error" in body and isinstance(body["error"], dict):
            raise refusal_from(body)
        return body

    async def token(self, handle: Handle, ttl_seconds: int = DEFAULT_TTL_SECONDS) -> str:
        """A new session's token for that user."""
        issued = await self.ask(
            handle.tenant, "auth", "issue-token", {"handle": handle.handle, "ttl_seconds": ttl_seconds}
        )
        return str(issued["token"])

    async def health(self, service: str) -> dict[str, Any]:
        """A service's own health report."""
        return await self.ask(PLATFORM_TENANT, service, "health", timeout_seconds=3)


@asynccontextmanager
async def installer(url: str | None = None) -> AsyncIterator[Installer]:
    """Connect as the installer of the current home; raises NotSignedIn when its key cannot be read, or Unavailable."""
    import nats

    async def quiet(_fault: Exception) -> None:
        """What fails is raised by the call that it fails; the library would print it too, with a traceback."""

    url = url or str(endpoints()["nats"])
    seed = current.home / "secrets" / "nkeys" / "installer.nk"
    if not os.access(seed, os.R_OK):
        raise NotSignedIn(f"{seed} cannot be read: run as the user who owns the home, or pass --token")
    try:
        nc = await nats.connect(
            url,
            nkeys_seed=str(seed),
            inbox_prefix=subjects.service_inbox("installer"),
            max_reconnect_attempts=1,
            connect_timeout=3,
            allow_reconnect=False,
            error_cb=quiet,
        )
    except Exception as fault:
        raise Unavailable(f"no bus at {url}: {fault or type(fault).__name__}") from None
    try:
        yield Installer(nc)
    finally:
        await nc.close()


def credential(as_: str | None, token: str | None, *, named: str | None = None) -> tuple[str | None, str | None]:
    """Who asks, as `(TENANT/HANDLE, token)`, one of them None: `--token`, else `--as`, else REMIT_TOKEN, else the user
    that the command itself names."""
    token = token or (None if as_ else os.environ.get("REMIT_TOKEN") or None)
    return (None, token) if token else (as_ or named, None)


@asynccontextmanager
async def acting_as(who: str | None, token: str | None = None) -> AsyncIterator[Client]:
    """A client of that user: by token (`--token`, REMIT_TOKEN), or at the machine by TENANT/HANDLE."""
    url = endpoints()["nats"]
    who, token = credential(who, token)
    if token is None:
        if who is None:
            raise NotSignedIn("say who you are: --as TENANT/HANDLE at the machine, or --token T")
        async with installer() as office:
            try:
                token = await office.token(Handle.parse(who))
            except Absent:
                raise Absent(f"there is no user {who}") from None
    async with connect(url, token=token) as client:
        yield client


def as_user(who: str | None, token: str | None, ask: Callable[[Client], Awaitable[T]]) -> T:
    """Run one question as that user, to its end."""

    async def go() -> T:
        async with acting_as(who, token) as client:
            return await ask(client)

    return asyncio.run(go())


def as_installer(ask: Callable[[Installer], Awaitable[T]]) -> T:
    """Run one question as the installer, to its end."""

    async def go() -> T:
        async with installer() as office:
            return await ask(office)

    return asyncio.run(go())
