"""A store takes nothing before its log was compared with the stream: one that lost its file, or is older, shows there."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from fixtures_nats import Bus
from integration.copying import CHAIN, STREAM, copied, copying, eventually, make_stream
from unit.chassis_eventstore.documents import Document, Keys

from remit_chassis.eventstore import jetstream, witness
from remit_chassis.eventstore.recorders import open_sqlite
from remit_chassis.eventstore.witness import Contradicted, NotCompared
from remit_contracts.errors import Tampered, Unavailable


def store_file(bus: Bus) -> Path:
    return bus.home.path / "store" / "policy" / "acme.sqlite"


def lose_store(bus: Bus) -> None:
    for file in store_file(bus).parent.iterdir():
        file.unlink()


async def five_events(bus: Bus, keys: Keys) -> None:
    await make_stream(bus)
    async with copying(bus, keys) as copy:
        await copy.save(5)
        await copy.caught_up()


def stored_count(bus: Bus) -> int:
    recorder = open_sqlite(store_file(bus), CHAIN, read_only=True)
    try:
        return recorder.head().notification_id
    finally:
        recorder.close()


async def test_a_store_whose_file_is_gone_takes_no_save_at_all(nats_bus: Bus) -> None:
    keys = Keys()
    await five_events(nats_bus, keys)
    lose_store(nats_bus)
    async with copying(nats_bus, keys) as copy:
        with pytest.raises(Contradicted, match=r"which the store has not") as refusal:
            await copy.save(1)
        assert (refusal.value.refusal_code, refusal.value.exit_code) == ("tampered.store", 6)
    assert stored_count(nats_bus) == 0
    assert len(await copied(nats_bus)) == 5


async def test_an_older_copy_of_a_store_takes_no_save_at_all(nats_bus: Bus, tmp_path: Path) -> None:
    keys = Keys()
    await five_events(nats_bus, keys)
    older = shutil.copy(store_file(nats_bus), tmp_path / "older.sqlite")
    await five_events(nats_bus, keys)
    lose_store(nats_bus)
    shutil.copy(older, store_file(nats_bus))
    async with copying(nats_bus, keys) as copy:
        with pytest.raises(Contradicted):
            await copy.save(1)
    assert stored_count(nats_bus) == 5


async def test_an_older_copy_shows_although_the_stream_ends_with_an_old_event_published_again(
    nats_bus: Bus, tmp_path: Path
) -> None:
    keys = Keys()
    await five_events(nats_bus, keys)
    older = shutil.copy(store_file(nats_bus), tmp_path / "older.sqlite")
    async with copying(nats_bus, keys) as copy:
        await copy.save(5)
        await copy.caught_up()
        await copy.stores.republish("acme", 2, 2)
    lose_store(nats_bus)
    shutil.copy(older, store_file(nats_bus))
    async with copying(nats_bus, keys) as copy:
        with pytest.raises(Contradicted, match="up to number 10"):
            await copy.save(1)
    assert stored_count(nats_bus) == 5


async def test_saves_that_come_before_the_comparison_are_stored_in_their_order_after_it(
    nats_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_stream(nats_bus)
    asked, answer = asyncio.Event(), asyncio.Event()
    last = jetstream.OrderedConnection.last

    async def held(connection: jetstream.OrderedConnection, stream: str, which: str) -> object:
        asked.set()
        await answer.wait()
        return await last(connection, stream, which)

    monkeypatch.setattr(jetstream.OrderedConnection, "last", held)
    async with copying(nats_bus) as copy, asyncio.timeout(20):
        document = Document(text="one")
        saves = [copy.store.save_later(document, user="u-1")]
        for text in ("two", "three"):
            document.edit(text=text)
            saves.append(copy.store.save_later(document, user="u-1"))
        await asked.wait()
        assert await copy.stored() == []
        assert not any(save.done() for save in saves)
        answer.set()
        assert await asyncio.gather(*saves) == [1, 2, 3]
        assert (await copy.store.load(Document, document.id)).text == "three"
        await copy.caught_up()


async def test_a_save_waits_for_the_bus_no_longer_than_its_patience(
    nats_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "PATIENCE_SECONDS", 0.3)
    await make_stream(nats_bus)
    nats_bus.stop()
    async with copying(nats_bus) as copy:
        with pytest.raises(NotCompared) as refusal:
            await copy.save(1)
        assert (refusal.value.refusal_code, refusal.value.exit_code) == ("unavailable.not_compared", 5)
        assert refusal.value.retry_after_seconds
        with pytest.raises(Unavailable):
            await copy.store.probe()
        assert await copy.stored() == []
        nats_bus.start()
        await copy.store.compared()
        await copy.save(1)
        await copy.caught_up()
        nats_bus.stop()  # compared once, a store does not wait for the bus again
        await copy.save(1)
        assert len(await copy.stored()) == 2


async def test_a_save_that_waits_when_its_store_closes_is_refused(nats_bus: Bus) -> None:
    nats_bus.stop()
    async with copying(nats_bus) as copy:
        waiting = copy.store.save_later(Document(text="one"), user="u-1")
        copy.keys.made["acme", "u-1"] = bytes(32)
    with pytest.raises(Unavailable):
        await waiting


async def test_a_tenant_whose_stream_does_not_exist_is_taken_at_its_word(nats_bus: Bus) -> None:
    """A new tenant, and a stream that was lost whole: what does not exist holds no other log."""
    async with copying(nats_bus) as copy, asyncio.timeout(20):
        await copy.save(1)
        await eventually(lambda: "does not exist yet" in copy.relay.problem)
        await make_stream(nats_bus)
        await copy.caught_up()
        assert await copied(nats_bus) == await copy.stored()
        assert copy.alarms == []


async def test_a_tenant_counts_by_its_stream_when_its_store_is_gone(nats_bus: Bus) -> None:
    keys = Keys()
    await five_events(nats_bus, keys)
    lose_store(nats_bus)
    async with copying(nats_bus, keys) as copy:
        assert copy.stores.tenants() == []
        await copy.stores.open()
        assert copy.stores.tenants() == ["acme", "platform"]
        assert list(copy.stores.contradictions()) == ["acme"]
        assert STREAM in copy.stores.contradiction("acme")


async def test_a_stream_without_a_services_events_makes_no_store(nats_bus: Bus) -> None:
    keys = Keys()
    await make_stream(nats_bus)
    async with copying(nats_bus, keys) as copy:
        await copy.stores.open()
        assert copy.stores.tenants() == ["platform"]
    assert not store_file(nats_bus).exists()


async def test_a_contradicted_tenant_holds_up_no_other(nats_bus: Bus) -> None:
    keys = Keys()
    await five_events(nats_bus, keys)
    lose_store(nats_bus)
    async with copying(nats_bus, keys) as copy:
        await copy.stores.open()
        await copy.stores.probe()
        await copy.stores.confirmed("globex")
        await copy.stores.of("globex").save(Document(text="other"), user="u-1")
        await copy.stores.confirmed("globex")
        with pytest.raises(Contradicted):
            await copy.stores.confirmed("acme")


@pytest.mark.parametrize("damage", [b"", b"no database" * 1000])
async def test_a_damaged_file_refuses_its_tenant_and_is_not_taken_back_before_a_start(
    nats_bus: Bus, damage: bytes
) -> None:
    keys = Keys()
    await five_events(nats_bus, keys)
    whole = store_file(nats_bus).read_bytes()
    store_file(nats_bus).write_bytes(damage)
    async with copying(nats_bus, keys) as copy:
        await copy.stores.open()
        assert list(copy.stores.contradictions()) == ["acme"]
        await copy.stores.probe()
        store_file(nats_bus).write_bytes(whole)
        copy.store.agree()  # what a witness says does not mend it
        with pytest.raises(Tampered):
            await copy.save(1)
    async with copying(nats_bus, keys) as copy:
        await copy.save(1)
        assert len(await copy.stored()) == 6


async def test_a_store_that_agrees_again_takes_saves_again(nats_bus: Bus) -> None:
    """The way out when it is the stream that is wrong: it is taken away, and filled again from the store."""
    keys = Keys()
    await five_events(nats_bus, keys)
    lose_store(nats_bus)
    async with copying(nats_bus, keys) as copy, asyncio.timeout(20):
        with pytest.raises(Contradicted):
            await copy.save(1)
        nats_bus.stop()
        shutil.rmtree(nats_bus.home.bus / "js")
        nats_bus.start()
        await make_stream(nats_bus)
        await eventually(lambda: not copy.store.contradiction)
        await copy.store.save(Document(text="more"), user="u-1")
        await copy.caught_up()
        assert await copied(nats_bus) == await copy.stored()
