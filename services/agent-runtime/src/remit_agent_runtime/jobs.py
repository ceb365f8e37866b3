"""The work-queue stream RUNS: jobs go in with the run's id as message id, and come out to this service's durable
consumer.

A job is acknowledged when its run has ended. Until then it is kept in hand by heartbeats; if this process ends, it
comes again after ACK_WAIT_SECONDS. The store is the record: a lost job is found there by the sweep, and a second one
finds its run ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson
import structlog

from remit_contracts import subjects
from remit_contracts.errors import Unavailable
from remit_contracts.identity import is_label

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

    from remit_agent_runtime.queue import RunQueue

DURABLE: Final = "agent-runtime"
ACK_WAIT_SECONDS: Final = 30.0
HEARTBEAT_SECONDS: Final = 10.0
PUBLISH_SECONDS: Final = 2.0
FETCH_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 1.0
BATCH: Final = 64


class Jobs:
    """Both ends of the work queue. `nc` is asked for at each use: there is none before the service has started."""

    def __init__(self, *, nc: Callable[[], Client], queue: RunQueue, limit: int) -> None:
        self._nc = nc
        self._queue = queue
        self._limit = limit
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._closed = False

    async def publish(self, tenant: str, user: str, agent: str, run_id: UUID) -> None:
        """Put a run in line; raises Unavailable when the bus did not take it."""
        from nats.errors import Error

        try:
            await (
                self._nc()
                .jetstream()
                .publish(
                    subjects.job(tenant, user, agent),
                    orjson.dumps({"run_id": run_id.hex}),
                    timeout=PUBLISH_SECONDS,
                    headers={"Nats-Msg-Id": run_id.hex},
                )
            )
        except (Error, OSError, TimeoutError) as fault:
            raise Unavailable(f"the work queue did not take the job: {fault or type(fault).__name__}") from None

    async def consume(self) -> None:
        """Hand jobs to the queue as long as it has room, until closed; outlives the bus."""
        from nats.errors import Error

        while not self._closed:
            try:
                subscription = await self._bound()
                for message in await self._fetch(subscription):
                    self._hand_over(message)
            except (Error, OSError, Unavailable) as fault:
                if self._closed:
                    return
                structlog.get_logger().info("jobs.waiting", error=str(fault)[:200] or type(fault).__name__)
                await self._let_go()  # the bus may have come back without the consumer
                await asyncio.sleep(PAUSE_SECONDS)

    async def keep(self) -> None:
        """Send heartbeats for the jobs in hand; never returns."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await self._queue.keep_jobs()
            except Exception as fault:  # the bus is away: the jobs come again
                structlog.get_logger().info("jobs.not_kept", error=str(fault)[:200])

    async def close(self) -> None:
        """Take no more jobs. Draining the connection would otherwise wait for a fetch that nobody reads."""
        self._closed = True
        await self._let_go()

    async def _let_go(self) -> None:
        from nats.errors import Error

        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(Error, OSError):
                await subscription.unsubscribe()

    async def _fetch(self, subscription: Any) -> list[Msg]:
        from nats.errors import TimeoutError as NothingYet

        # Runs that only keep a place wait for their jobs: counted here, they would keep these out.
        room = min(BATCH, self._limit - self._queue.in_line)
        if room <= 0:
            await asyncio.sleep(PAUSE_SECONDS)
            return []
        try:
            messages: list[Msg] = await subscription.fetch(batch=room, timeout=FETCH_SECONDS)
        except NothingYet:
            return []
        return messages

    async def _bound(self) -> JetStreamContext.PullSubscription:
        from nats.js.api import AckPolicy, ConsumerConfig

        if self._subscription is None:
            config = ConsumerConfig(
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_SECONDS,
                max_ack_pending=self._limit,
                max_deliver=-1,
            )
            self._subscription = (
                await self._nc()
                .jetstream()
                .pull_subscribe("", durable=DURABLE, stream=subjects.RUNS_STREAM, config=config)
            )
        return self._subscription

    def _hand_over(self, message: Msg) -> None:
        """The subject says whose run it is; a message that names no run is taken out, for it would come for ever."""
        tokens = message.subject.split(".")
        try:
            run_id = UUID(hex=str(orjson.loads(message.data)["run_id"]))
            if len(tokens) != 5 or tokens[3] != "job" or not all(map(is_label, tokens)):
                raise ValueError(message.subject)
        except (ValueError, KeyError, TypeError) as fault:
            structlog.get_logger().warning("job.malformed", subject=message.subject[:200], error=str(fault)[:200])
            task = asyncio.ensure_future(message.term())
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            return
        self._queue.put(tokens[1], tokens[2], run_id, _Held(message))


class _Held:
    """A message as the queue holds it."""

    def __init__(self, message: Msg) -> None:
        self._message = message

    async def ack(self) -> None:
        await self._message.ack()

    async def in_progress(self) -> None:
        await self._message.in_progress()

    async def nak(self, delay: float) -> None:
        await self._message.nak(delay=delay)
