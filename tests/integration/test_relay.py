"""The relay on a real bus, with a service's own nkey and permissions: in order, nothing missing, nobody believed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from fixtures_nats import Bus
from unit.chassis_eventstore.documents import Document, Keys

from remit_chassis.eventstore import jetstream, relay
from remit_chassis.eventstore.chain import Chain, Head, first_break
from remit_chassis.eventstore.jetstream import LinkLost
from remit_chassis.eventstore.relay import Relay, message_id
from remit_chassis.eventstore.store import EventStore
from remit_chassis.eventstore.stores import EventStores
from remit_chassis.settings import ServiceSettings, read_hex_secret
from remit_contracts import events, subjects
from remit_contracts.errors import Tampered, Unavailable
from remit_contracts.events import Envelope
from remit_infra import streams

CHAIN = Chain("policy", "acme")
STREAM = subjects.events_stream("acme")


class Settings(ServiceSettings):
    service_name: ClassVar[str] = "policy"


@dataclass
class Service:
    """What EventStores needs of one."""

    settings: ServiceSettings
    name: str = "policy"
    inbox: str = "_INBOX_SVC.policy"
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass
class Copy:
    """A service's stores, their keys and alarms, and the stream they are copied to."""

    bus: Bus
    stores: EventStores
    keys: Keys
    alarms: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def store(self) -> EventStore:
        return self.stores.of("acme")

    @property
    def relay(self) -> Relay:
        return self.stores.relay("acme")

    async def save(self, count: int) -> None:
        await asyncio.gather(*(self.store.save(Document(text=str(n)), user=f"u-{n % 7}") for n in range(count)))

    async def caught_up(self) -> None:
        async with asyncio.timeout(30):
            await self.relay.caught_up()

    async def stored(self) -> list[Envelope]:
        return list(await self.store.read(1, 100_000))


@asynccontextmanager
async def copying(bus: Bus, keys: Keys | None = None) -> AsyncIterator[Copy]:
    alarms: list[tuple[str, dict[str, Any]]] = []
    keys = keys or Keys()
    stores = EventStores(
        Service(Settings(home=bus.home.path, nats_url=bus.url)), keys, alarm=lambda *what: alarms.append(what)
    )
    try:
        yield Copy(bus, stores, keys, alarms)
    finally:
        await stores.close()


async def make_stream(bus: Bus) -> None:
    await streams.ensure_streams(bus.home, bus.url, ["acme"])


async def messages(bus: Bus) -> list[Any]:
    """Every message of the stream by sequence, as any service may look at it."""
    async with bus.client("audit") as nc:
        js = nc.jetstream()
        last = (await js.stream_info(STREAM)).state.last_seq
        return [await js.get_msg(STREAM, seq=sequence) for sequence in range(1, last + 1)]


async def copied(bus: Bus) -> list[Envelope]:
    return [events.from_message(found.headers, found.data, found.subject) for found in await messages(bus)]


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_LONGEST_PAUSE_SECONDS", 0.2)


# -- the plain way ----------------------------------------------------------------------------------------------------


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


# -- crashes ----------------------------------------------------------------------------------------------------------


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


# -- forgeries --------------------------------------------------------------------------------------------------------


async def test_a_claimed_message_id_is_not_taken_for_success(nats_bus: Bus) -> None:
    """Somebody who has the relay's key publishes rubbish under the id of an event to come."""
    await make_stream(nats_bus)
    keys = Keys()
    async with copying(nats_bus, keys) as copy:
        await copy.store.compared()
        nats_bus.stop()
        await copy.save(3)
        stored = await copy.stored()
        key = read_hex_secret(nats_bus.home.secrets / "relay" / "policy.key")
        nats_bus.start()
        # As another service, on a subject of its own: the stream remembers ids across all subjects.
        async with nats_bus.client("audit") as nc:
            ack = await nc.jetstream().publish(
                subjects.event("acme", "u-9", "audit", "0" * 32),
                b"forged",
                headers={"Nats-Msg-Id": message_id(key, stored[1])},
            )
            assert ack.seq == 1
        await copy.caught_up()
        found = [message for message in await messages(nats_bus) if ".evt.policy." in message.subject]
        envelopes = [events.from_message(message.headers, message.data, message.subject) for message in found]
        assert sorted(envelopes, key=lambda envelope: envelope.notification_id) == stored
        assert [(code, detail["notification_id"]) for code, detail in copy.alarms] == [("relay.forged", 2)]
        assert copy.relay.position == 3


async def test_a_stream_that_ends_with_what_the_store_has_not_is_an_alarm(nats_bus: Bus) -> None:
    """As when the store was restored from an old copy: adding to the stream would fork the record."""
    await make_stream(nats_bus)
    keys = Keys()
    async with copying(nats_bus, keys) as copy:
        await copy.save(5)
        await copy.caught_up()
        stored = await copy.stored()
    for file in (nats_bus.home.path / "store" / "policy").iterdir():
        file.unlink()
    async with copying(nats_bus, keys) as copy:
        # Whoever goes on writing would widen the fork: no save, no readiness.
        with pytest.raises(Tampered):
            await copy.save(1)
        with pytest.raises(Tampered):
            await copy.store.probe()
        assert [code for code, _ in copy.alarms] == ["relay.forked"]
        assert await copy.stored() == []
        assert await copied(nats_bus) == stored


async def test_rubbish_on_the_services_own_subject_is_an_alarm(nats_bus: Bus) -> None:
    await make_stream(nats_bus)
    async with nats_bus.client("policy") as nc:
        await nc.jetstream().publish(subjects.event("acme", "u-1", "policy", "0" * 32), b"rubbish")
    async with copying(nats_bus) as copy:
        with pytest.raises(Tampered):
            await copy.save(1)
        assert [code for code, _ in copy.alarms] == ["relay.forked"]
        assert len(await messages(nats_bus)) == 1


# -- again ------------------------------------------------------------------------------------------------------------


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


# -- stores -----------------------------------------------------------------------------------------------------------


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
