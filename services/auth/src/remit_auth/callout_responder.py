"""The connection on the AUTH account on which the bus server asks, and the answers to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog

from remit_auth.callout import Callout
from remit_auth.refusal_log import RefusalLog
from remit_chassis.nkeys import BadClaims
from remit_chassis.round_trip import taken_in
from remit_contracts import subjects
from remit_contracts.errors import Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from remit_auth.settings import AuthSettings

QUEUE = "auth"
MAX_WAITING = 1000  # requests; the server waits two seconds, so an answer to the thousandth would come too late


class CalloutResponder:
    """Answers from `open` until `close`; several processes share the work. Closed means that nobody new gets in."""

    def __init__(
        self, callout: Callout, settings: AuthSettings, log: RefusalLog, *, known: Callable[[], Awaitable[None]]
    ) -> None:
        """`known` returns once the live connections are known, or when waiting longer would be in vain."""
        self._known = known
        self._callout = callout
        self._settings = settings
        self._log = log
        self._nc: Client | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect and listen; the connection comes back by itself when the server does."""
        import nats

        self._nc = await nats.connect(
            self._settings.nats_url,
            name="auth-callout",
            nkeys_seed=str(self._settings.callout_nkey_file),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,
            error_cb=self._fault,
            tls=self._settings.nats_tls(),
        )
        await self._nc.subscribe(subjects.AUTH_CALLOUT, queue=QUEUE, cb=self._arrived, pending_msgs_limit=MAX_WAITING)
        await taken_in(self._nc)

    async def close(self) -> None:
        """Stop answering."""
        if self._nc:
            await self._nc.close()

    async def check(self) -> str:
        """For readiness; raises Unavailable while nobody gets in."""
        if self._nc is None or not self._nc.is_connected:
            raise Unavailable("nobody is let in: the directory is still being read, or the bus is away")
        return "the directory is read, and users are let in"

    async def _arrived(self, message: Msg) -> None:  # no await in here: nats-py runs one callback at a time
        task = asyncio.get_running_loop().create_task(self._serve(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, message: Msg) -> None:
        """A request that is none gets no answer, so the server refuses that connection by itself after two seconds."""
        try:
            await self._known()
            await message.respond(self._callout.answer(message.data, message.headers))
        except BadClaims as fault:
            self._log.refused(f"garbage instead of a request: {fault}")
        except Exception:
            structlog.get_logger().exception("callout.failed")

    async def _fault(self, fault: Exception) -> None:
        structlog.get_logger().warning("callout.bus_error", error=str(fault)[:300])
