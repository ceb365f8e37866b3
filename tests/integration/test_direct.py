"""What direct subscriptions rely on in the client library, on a real server."""

from __future__ import annotations

import asyncio

from fixtures_nats import Bus
from nats.aio.msg import Msg

from remit_chassis import direct

MANY = 5_000


async def test_every_message_is_handled_once_and_in_order(nats_bus: Bus) -> None:
    nats_bus.add_anyone()
    nc, other = await nats_bus.connect_as_anyone(), await nats_bus.connect_as_anyone()
    seen: list[int] = []
    complete = asyncio.Event()

    def take(message: Msg) -> None:
        seen.append(int(message.data))
        if len(seen) == MANY:
            complete.set()

    await direct.subscribe(nc, "lab.numbers", take)
    await nc.flush()
    for number in range(MANY):
        await other.publish("lab.numbers", b"%d" % number)
    async with asyncio.timeout(20):
        await complete.wait()
    assert seen == list(range(MANY))
    await nc.close()
    await other.close()


async def test_a_bug_in_a_handler_ends_neither_the_subscription_nor_the_connection(nats_bus: Bus) -> None:
    nats_bus.add_anyone()
    nc = await nats_bus.connect_as_anyone()
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    def take(message: Msg) -> None:
        if message.data == b"bad":
            raise RuntimeError("a bug")
        seen.put_nowait(message.data)

    await direct.subscribe(nc, "lab.bugs", take)
    for data in (b"1", b"bad", b"2"):
        await nc.publish("lab.bugs", data)
    async with asyncio.timeout(10):
        assert [await seen.get(), await seen.get()] == [b"1", b"2"]
    assert nc.is_connected
    await nc.close()


async def test_a_subscription_that_ended_hears_no_more_and_a_queue_group_shares(nats_bus: Bus) -> None:
    nats_bus.add_anyone()
    nc = await nats_bus.connect_as_anyone()
    ended: list[bytes] = []
    first: list[bytes] = []
    second: list[bytes] = []
    gone = await direct.subscribe(nc, "lab.shared", lambda message: ended.append(message.data))
    await gone.unsubscribe()
    await direct.subscribe(nc, "lab.shared", lambda message: first.append(message.data), queue="lab")
    await direct.subscribe(nc, "lab.shared", lambda message: second.append(message.data), queue="lab")
    await nc.flush()
    for number in range(200):
        await nc.publish("lab.shared", b"%d" % number)
    async with asyncio.timeout(10):
        while len(first) + len(second) < 200:
            await nc.flush()
    assert sorted(map(int, first + second)) == list(range(200))
    assert first
    assert second
    assert ended == []
    await nc.close()
