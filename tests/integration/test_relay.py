"""The relay on a real bus, with a service's own nkey and permissions: in order, nothing missing, again on request."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import Any

import pytest
from fixtures_nats import Bus
from integration.copying import CHAIN, copied, copying, eventually, make_stream, messages
from unit.chassis_eventstore.documents import Document, Keys

from remit_chassis.eventstore import jetstream
from remit_chassis.eventstore.chain import Head, first_break
from remit_chassis.eventstore.relay import message_id
from remit_chassis.settings import read_hex_secret
from remit_contracts.errors import Unavailable


async def test_every_event_is_copied_once_in_order_as_it_was_stored(nats_bus: Bus) -> None:
    await make_stream(nats_bus)
    async with copying(nats_bus) as copy:
        await copy.save(700)  # more than two windows
        await copy.caught_up()
        found = await copied(nats_bus)
        assert found == await copy.stored()
        assert first_break(CHAIN, Head(), found) is None
        assert copy.relay.lag == 0
        assert copy.alarms == []


async def test_message_ids_are_keyed_so_that_nobody_can_claim_one(nats_bus: Bus) -> None:
    await make_stream(nats_bus)
    async with copying(nats_bus) as copy:
        await copy.save(2)
        await copy.caught_up()
        key = read_hex_secret(nats_bus.home.secrets / "relay" / "policy.key")
        found = await messages(nats_bus)
        envelopes = await copied(nats_bus)
        ids = [message.headers["Nats-Msg-Id"] for message in found]
        assert ids == [message_id(key, envelope) for envelope in envelopes]
        assert ids != [message_id(bytes(32), envelope) for envelope in envelopes]
        assert len(set(ids)) == 2


async def test_a_stream_that_comes_later_is_filled_from_the_first_event(nats_bus: Bus) -> None:
    async with copying(nats_bus) as copy:
        await copy.save(5)
        await eventually(lambda: bool(copy.relay.problem))
        assert copy.relay.lag == 5
        await make_stream(nats_bus)
        await copy.caught_up()
        assert await copied(nats_bus) == await copy.stored()


async def test_stores_found_at_start_are_copied_without_being_asked_for(nats_bus: Bus) -> None:
    keys = Keys()
    async with copying(nats_bus, keys) as copy:
        await copy.save(3)
    await make_stream(nats_bus)
    async with copying(nats_bus, keys) as copy:
        assert copy.stores.tenants() == ["acme"]
        await copy.stores.open()
        await copy.caught_up()
        assert len(await copied(nats_bus)) == 3


async def test_a_restarted_relay_goes_on_behind_its_last_message(nats_bus: Bus) -> None:
    await make_stream(nats_bus)
    keys = Keys()
    for _ in range(3):
        async with copying(nats_bus, keys) as copy:
            await copy.save(40)
            await copy.caught_up()
            stored = await copy.stored()
    assert await copied(nats_bus) == stored
    assert len(stored) == 120


async def test_a_range_is_published_again_on_request(nats_bus: Bus) -> None:
    await make_stream(nats_bus)
    async with copying(nats_bus) as copy:
        await copy.save(10)
        await copy.caught_up()
        assert await copy.stores.republish("acme", 3, 5) == 3
        assert await copy.stores.republish("acme", 9, 99) == 2
        assert await copy.stores.republish("acme", 7, 6) == 0
        numbers = [envelope.notification_id for envelope in await copied(nats_bus)]
        assert numbers == [*range(1, 11), 3, 4, 5, 9, 10]
        await copy.save(2)
        await copy.caught_up()
        assert [envelope.notification_id for envelope in await copied(nats_bus)][-2:] == [11, 12]


async def test_a_restart_after_a_range_was_published_again_repeats_nothing(
    nats_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_stream(nats_bus)
    keys = Keys()
    async with copying(nats_bus, keys) as copy:
        await copy.save(10)
        await copy.caught_up()
        await copy.stores.republish("acme", 2, 3)
    # What is sent counts: for two minutes the stream would drop repetitions by their ids, and store them afterwards.
    sent: list[int] = []
    publish = jetstream.OrderedConnection.publish

    async def counted(connection: Any, messages: Any) -> Any:
        sent.append(len(messages))
        return await publish(connection, messages)

    monkeypatch.setattr(jetstream.OrderedConnection, "publish", counted)
    async with copying(nats_bus, keys) as copy:
        await copy.save(1)
        await copy.caught_up()
    assert sent == [1]
    numbers = [envelope.notification_id for envelope in await copied(nats_bus)]
    assert numbers == [*range(1, 11), 2, 3, 11]


async def test_asking_again_while_the_bus_is_gone_is_answered_at_the_end(nats_bus: Bus) -> None:
    await make_stream(nats_bus)
    async with copying(nats_bus) as copy:
        await copy.save(3)
        await copy.caught_up()
        nats_bus.stop()
        asked = asyncio.ensure_future(copy.stores.republish("acme", 1, 3))
        await eventually(lambda: bool(copy.relay.problem))
    with pytest.raises(Unavailable):
        await asked


async def test_a_services_stores_are_one_per_tenant(nats_bus: Bus) -> None:
    async with copying(nats_bus) as copy:
        await copy.stores.of("acme").save(Document(text="one"), user="u-1")
        await copy.stores.of("globex").save(Document(text="other"), user="u-1")
        assert copy.stores.tenants() == ["acme", "globex"]
        assert [path.name for path in sorted((nats_bus.home.path / "store" / "policy").glob("*.sqlite"))] == [
            "acme.sqlite",
            "globex.sqlite",
        ]
        assert copy.stores.of("acme").head() != copy.stores.of("globex").head()
        assert copy.keys.made["acme", "u-1"] != copy.keys.made["globex", "u-1"]


async def test_readiness_is_a_write_that_succeeded(nats_bus: Bus) -> None:
    async with copying(nats_bus) as copy:
        await copy.stores.probe()
        store = copy.stores.of("platform")
        assert store.head() == (0, bytes(32))
        shutil.rmtree(nats_bus.home.path / "store")
        (nats_bus.home.path / "store").write_text("no directory")
        with pytest.raises(Unavailable):
            await copy.stores.of("acme").probe()
        with pytest.raises(Unavailable):
            await copy.stores.probe()


async def test_a_relay_ends_although_the_client_library_swallows_its_cancellation(
    nats_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11's wait_for does, when what it waits for comes at that moment: the relay then follows on, for ever."""
    await make_stream(nats_bus)
    connecting = asyncio.Event()
    connect = jetstream.OrderedConnection.open

    async def swallow_once(opener: Any) -> Any:
        if not connecting.is_set():
            connecting.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return await connect(opener)

    monkeypatch.setattr(jetstream.OrderedConnection, "open", swallow_once)
    async with asyncio.timeout(20):
        async with copying(nats_bus) as copy:
            waiting = copy.store.save_later(Document(text="one"), user="u-1")
            await connecting.wait()
        with pytest.raises(Unavailable):
            await waiting
