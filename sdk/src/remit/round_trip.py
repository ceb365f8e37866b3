"""Waiting until the bus server has taken in what was said on a connection. Nobody calls the client library's `flush`.

A `flush` that is cancelled, or that times out, leaves a cancelled future among the PONGs that the library awaits. The
next PONG fails on it, which ends the connection's reader without a word: the connection looks open, hears nothing and
is not made again (nats-py 2.16). The future that waits here is never cancelled. tests/architecture says that nobody
calls `flush`, tests/integration/test_round_trip.py what we rely on.

`remit_chassis.round_trip` is the same for services: this library knows the contracts alone, and those know no bus.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from remit_contracts.errors import Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client


async def taken_in(nc: Client, *, within_seconds: float) -> None:
    """Return once the server has taken in all that was said before, subscriptions included; raises Unavailable.

    The library writes a PING past what still waits in its buffer, so the first round trip lets that out, and the
    second is answered after it.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_seconds
    for _ in range(2):
        if not nc.is_connected:
            raise Unavailable("the connection to the bus is lost")
        pong: asyncio.Future[bool] = loop.create_future()
        await nc._send_ping(pong)
        await asyncio.wait({pong}, timeout=max(deadline - loop.time(), 0))  # unlike wait_for it leaves the future alone
        if not pong.done():
            raise Unavailable(f"the bus did not answer in {within_seconds:g} s")
