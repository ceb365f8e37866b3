"""Messages of a tenant's event stream as they come, through the durable consumer `audit`.

A standing pull request is renewed before it runs out; nats-py's own `fetch` waits for a whole batch or its time-out,
which would delay every event that comes alone. One acknowledgement stands for all messages before it.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from remit_chassis import direct
from remit_chassis.streams import ask_jetstream
from remit_contracts.errors import Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

DURABLE: Final = "audit"
BATCH: Final = 512
EXPIRES_SECONDS: Final = 5
LINGER_SECONDS: Final = 0.2
"""How long a batch waits for more: a transaction, a signature and a fsync for every single event cost more than the
call that the event is about."""
ACK_WAIT_SECONDS: Final = 30
NANOSECONDS: Final = 1_000_000_000


def consumer(stream: str) -> dict[str, Any]:
    """The body of CONSUMER.CREATE. What we ask for bounds what is unacknowledged, so the server need not count."""
    return {
        "stream_name": stream,
        "config": {
            "name": DURABLE,
            "durable_name": DURABLE,
            "deliver_policy": "all",
            "ack_policy": "all",
            "ack_wait": ACK_WAIT_SECONDS * NANOSECONDS,
            "max_ack_pending": -1,
            "replay_policy": "instant",
        },
    }


class Pull:
    """A durable consumer that is asked for more whenever less than half a batch is on its way."""

    def __init__(self, nc: Client, stream: str) -> None:
        self._nc = nc
        self._stream = stream
        self._arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._subscription: Subscription | None = None
        self._inbox = nc.new_inbox()
        self._on_its_way = 0
        self._ended = ""

    async def start(self) -> None:
        """Make the consumer unless it is there; raises Unavailable."""
        answer = await ask_jetstream(self._nc, f"CONSUMER.CREATE.{self._stream}.{DURABLE}", consumer(self._stream))
        if error := answer.get("error"):
            raise Unavailable(f"the consumer {DURABLE} of {self._stream} cannot be made: {error.get('description')}")
        self._subscription = await direct.subscribe(self._nc, self._inbox, self._take)

    async def stop(self) -> None:
        """Take no more; what was not acknowledged comes again."""
        if self._subscription and not self._nc.is_closed:
            await self._subscription.unsubscribe()

    async def batch(self, limit: int = BATCH) -> list[Msg]:
        """At least one message, and what comes within LINGER_SECONDS; raises Unavailable when the consumer is gone."""
        while True:
            if self._on_its_way <= BATCH // 2:
                await self._ask()
            try:
                async with asyncio.timeout(EXPIRES_SECONDS + 1):
                    first = await self._arrived.get()
            except TimeoutError:
                self._on_its_way = 0  # the request was lost with a connection
                continue
            if self._ended:
                raise Unavailable(f"the consumer {DURABLE} of {self._stream} ended: {self._ended}")
            messages = [first] if first else []
            if messages and self._arrived.qsize() < limit:
                await asyncio.sleep(LINGER_SECONDS)
            while len(messages) < limit and not self._arrived.empty():
                messages += filter(None, [self._arrived.get_nowait()])
            if messages:
                return messages

    async def _ask(self) -> None:
        request = {"batch": BATCH, "expires": EXPIRES_SECONDS * NANOSECONDS}
        self._on_its_way += BATCH
        await self._nc.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{DURABLE}", json.dumps(request).encode(), reply=self._inbox
        )

    def _take(self, message: Msg) -> None:
        status = "" if message.reply or not message.headers else message.headers.get("Status", "")
        if not status:
            self._on_its_way = max(0, self._on_its_way - 1)
            self._arrived.put_nowait(message)
            return
        self._on_its_way = max(0, self._on_its_way - BATCH)
        if status != "408":  # 408 says that a request ran out; anything else, that there will be no answer
            self._ended = f"{status} {(message.headers or {}).get('Description', '')}".strip()
        self._arrived.put_nowait(None)
