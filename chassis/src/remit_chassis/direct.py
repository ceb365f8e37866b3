"""Subscriptions whose messages are handled in the turn of the loop in which they were read.

The client library hands each message through a queue to a task of the subscription's own: two more turns of the loop
a message. Where handling is a dictionary's look-up, that is most of its cost. What takes
its place is the subscription's queue, which the library keeps to itself: it is pinned, and
tests/integration/test_direct.py says what we rely on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

Handle = Callable[["Msg"], object]
"""Must be quick and must not block: nothing else is read from the connection meanwhile."""


class _Direct(asyncio.Queue["Msg"]):
    """A queue that is always empty: what is put is handled."""

    def __init__(self, handle: Handle) -> None:
        super().__init__()
        self._handle = handle

    def put_nowait(self, item: Msg) -> None:
        try:
            self._handle(item)
        except Exception:  # a bug: it must not end the connection's reader
            structlog.get_logger().exception("message.failed", subject=item.subject[:200])


async def subscribe(nc: Client, subject: str, handle: Handle, *, queue: str = "") -> Subscription:
    """Have every message handled at once, in the order in which they come. Nothing is dropped, however many come."""
    subscription = await nc.subscribe(subject, queue=queue, pending_msgs_limit=-1, pending_bytes_limit=-1)
    came_already, subscription._pending_queue = subscription._pending_queue, _Direct(handle)
    while not came_already.empty():
        subscription._pending_queue.put_nowait(came_already.get_nowait())
    return subscription
