"""A relay whose bus or connection dies under it: every event comes, in order, and none is missing."""

from __future__ import annotations

import asyncio
import shutil
import signal
from typing import Any

import pytest
from fixtures_nats import Bus
from integration.copying import copied, copying, eventually, make_stream

from remit_chassis.eventstore import jetstream
from remit_chassis.eventstore.jetstream import LinkLost


async def test_a_bus_killed_amid_the_copying_gets_every_event_in_order(nats_bus: Bus) -> None:
    await make_stream(nats_bus)
    async with copying(nats_bus) as copy:
        for _ in range(3):
            saving = asyncio.ensure_future(copy.save(1500))
            await eventually(lambda: copy.relay.position > 0)
            nats_bus.stop(signal.SIGKILL)
            await saving  # the store does not wait for the bus
            nats_bus.start()
            await copy.save(10)
        await copy.caught_up()
        found = await copied(nats_bus)
        unique = list({envelope.notification_id: envelope for envelope in found}.values())
        assert [envelope.notification_id for envelope in found] == sorted(
            envelope.notification_id for envelope in found
        )
        assert unique == await copy.stored()
        assert copy.alarms == []


async def test_a_bus_that_lost_everything_is_filled_again_from_the_first_event(nats_bus: Bus) -> None:
    await make_stream(nats_bus)
    async with copying(nats_bus) as copy:
        await copy.save(300)
        await copy.caught_up()
        nats_bus.stop(signal.SIGKILL)
        shutil.rmtree(nats_bus.home.bus / "js")
        nats_bus.start()
        await make_stream(nats_bus)
        await copy.save(1)
        await eventually(lambda: copy.relay.lag == 0 and copy.relay.position == 301)
        assert await copied(nats_bus) == await copy.stored()
        assert copy.alarms == []


async def test_a_bus_that_lost_its_newest_messages_gets_them_again(nats_bus: Bus) -> None:
    """A crash of the machine takes what was acknowledged and not yet synced: here the store directory of before."""
    await make_stream(nats_bus)
    async with copying(nats_bus) as copy:
        await copy.save(50)
        await copy.caught_up()
        nats_bus.stop()
        before = nats_bus.home.bus / "before"
        shutil.copytree(nats_bus.home.bus / "js", before)
        nats_bus.start()
        await copy.save(50)
        await copy.caught_up()
        nats_bus.stop(signal.SIGKILL)
        shutil.rmtree(nats_bus.home.bus / "js")
        before.rename(nats_bus.home.bus / "js")
        nats_bus.start()
        await copy.save(1)
        await eventually(lambda: copy.relay.position == 101)
        assert await copied(nats_bus) == await copy.stored()


async def test_an_idle_relay_notices_that_the_bus_lost_everything(nats_bus: Bus) -> None:
    await make_stream(nats_bus)
    async with copying(nats_bus) as copy:
        await copy.save(5)
        await copy.caught_up()
        nats_bus.stop(signal.SIGKILL)
        shutil.rmtree(nats_bus.home.bus / "js")
        nats_bus.start()
        await make_stream(nats_bus)

        async def filled() -> bool:
            return len(await copied(nats_bus)) == 5

        async with asyncio.timeout(20):
            while not await filled():
                await asyncio.sleep(0.05)


async def test_a_publish_without_an_answer_is_settled_on_the_next_connection(
    nats_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream has the window and the relay does not know: it must neither lose nor double an event."""
    await make_stream(nats_bus)
    async with copying(nats_bus) as copy:
        await copy.save(1)
        await copy.caught_up()
        deaf = [True]
        hear = jetstream.OrderedConnection._answered

        def deaf_once(connection: Any, message: Any) -> None:
            if not deaf[0]:
                hear(connection, message)

        monkeypatch.setattr(jetstream, "ANSWER_SECONDS", 0.3)
        monkeypatch.setattr(jetstream.OrderedConnection, "_answered", deaf_once)
        connection = await copy.stores._link.connection()
        await connection.close()  # so that a new connection listens with the deaf ear
        await copy.save(20)
        await eventually(lambda: "not answered" in copy.relay.problem)
        deaf[0] = False
        await copy.caught_up()
        assert await copied(nats_bus) == await copy.stored()
        assert copy.alarms == []


async def test_a_hole_that_a_lost_connection_left_is_closed(nats_bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream refused one event amid a window, and the connection ended before the relay heard of it."""
    await make_stream(nats_bus)
    async with copying(nats_bus) as copy:
        await copy.save(1)
        await copy.caught_up()
        publish = jetstream.OrderedConnection.publish

        async def holed(connection: Any, messages: Any) -> Any:
            if len(messages) < 5:
                return await publish(connection, messages)
            monkeypatch.setattr(jetstream.OrderedConnection, "publish", publish)
            await publish(connection, [*messages[:2], *messages[3:]])
            await connection.close()
            raise LinkLost("the answers were not heard")

        nats_bus.stop()
        await copy.save(20)
        monkeypatch.setattr(jetstream.OrderedConnection, "publish", holed)
        nats_bus.start()
        await copy.caught_up()
        numbers = [envelope.notification_id for envelope in await copied(nats_bus)]
        assert numbers == [1, 2, 3, *range(5, 22), 4]
        assert copy.alarms == []
