"""Auth's place on the bus where a test plays it: it knows the sessions it was told of, and none else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import orjson
from fixtures_nats import Bus, seen_by_server
from nats.aio.msg import Msg

from remit_contracts import subjects
from remit_contracts.directory import DescribeSession, SessionDescribed
from remit_contracts.errors import NotSignedIn


@asynccontextmanager
async def known_sessions(bus: Bus, *names: str) -> AsyncIterator[set[str]]:
    """Sessions of these names are open, whosever they are; the set may be changed meanwhile."""
    known = set(names)

    async def describe(message: Msg) -> None:
        session = DescribeSession.from_bytes(message.data).session
        if session in known:
            until = datetime.now(UTC) + timedelta(hours=1)
            await message.respond(SessionDescribed(session=session, expires_at=until).to_bytes())
        else:
            refusal = NotSignedIn("the session has ended, or was never this user's", code="auth.session_ended")
            await message.respond(orjson.dumps(refusal.as_dict()))

    async with bus.client("auth") as auth:
        await auth.subscribe(subjects.any_request("rpc", "auth", "describe-session"), cb=describe)
        await seen_by_server(auth)
        yield known
