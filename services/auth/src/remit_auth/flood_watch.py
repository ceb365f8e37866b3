"""Cutting off whoever floods the bus: each second the servers' counts are compared with those of the last look.

A bus server takes in what a client says as fast as it comes, so that a flood is read by a service before it can be
refused there. Asked are the lists of connections alone, and nobody while no user is connected: about 20 ms of this
process a second for 4,096 connections, which is what a server lets in.
"""

from __future__ import annotations

import asyncio

import structlog

from remit_auth.cutting import Cutting
from remit_auth.live_connections import LiveConnections
from remit_auth.message_rates import Flood, MessageRates
from remit_auth.system_account import SystemAccount
from remit_contracts.errors import Unavailable

LOOK_SECONDS = 1.05  # a little over the least span of a rate, or every other look would be too early
TOLD_WITHIN_SECONDS = 1.0
"""Our own connection may stand in the flood's line: whoever floods is not kept connected for being told of it."""


class FloodWatch:
    """Looks in `run`, for ever."""

    def __init__(self, account: SystemAccount, live: LiveConnections, rates: MessageRates, cutting: Cutting) -> None:
        self._account = account
        self._live = live
        self._rates = rates
        self._cutting = cutting
        self._telling: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look, cut off, and again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if len(self._live):
                    floods = self._rates.looked(await self._account.counts())
                    await asyncio.gather(*map(self._cut, floods))
                else:
                    self._rates.unknown()
            except Unavailable:  # said already by whoever asks the same servers who is connected
                self._rates.unknown()
            except Exception:
                structlog.get_logger().exception("flood_watch.failed")

    async def _cut(self, flood: Flood) -> None:
        """The user is refused already, so that what is cut does not come back."""
        structlog.get_logger().warning(
            "connections.flooding",
            tenant=flood.tenant,
            user=flood.user,
            code=flood.refusal.refusal_code,
            messages_per_second=round(flood.messages_per_second),
            connections=len(flood.connections),
            refused_seconds=flood.refusal.retry_after_seconds,
        )
        callers = set(flood.connections.values())
        if callers:  # one of the sessions: all of them hear the user's own subject
            telling = asyncio.ensure_future(self._cutting.say(callers.pop(), flood.refusal))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)
            await asyncio.wait({telling}, timeout=TOLD_WITHIN_SECONDS)
        await self._cutting.kick(flood.connections)
