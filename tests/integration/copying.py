"""A service's stores and their relays on a real bus, with that service's own nkey and permissions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from fixtures_nats import Bus
from unit.chassis_eventstore.documents import Document, Keys

from remit_chassis.eventstore import relay
from remit_chassis.eventstore.chain import Chain
from remit_chassis.eventstore.relay import Relay
from remit_chassis.eventstore.store import EventStore
from remit_chassis.eventstore.stores import EventStores
from remit_chassis.settings import ServiceSettings
from remit_contracts import events, subjects
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
    """The stores and their relays until the end; a relay that waits for the bus looks often."""
    alarms: list[tuple[str, dict[str, Any]]] = []
    keys = keys or Keys()
    stores = EventStores(
        Service(Settings(home=bus.home.path, nats_url=bus.url)), keys, alarm=lambda *what: alarms.append(what)
    )
    with pytest.MonkeyPatch.context() as impatient:
        impatient.setattr(relay, "_LONGEST_PAUSE_SECONDS", 0.2)
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
