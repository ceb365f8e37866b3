"""A service's event stores, one per tenant, each with the relay that copies it into the tenant's stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from remit_chassis.eventstore.chain import Chain, Recorder
from remit_chassis.eventstore.jetstream import Link, LinkLost, NoStream
from remit_chassis.eventstore.recorders import open_sqlite
from remit_chassis.eventstore.relay import Alarm, Relay, log_alarm
from remit_chassis.eventstore.store import EventStore
from remit_chassis.eventstore.witness import PATIENCE_SECONDS
from remit_chassis.settings import ServiceSettings, read_hex_secret
from remit_contracts import subjects
from remit_contracts.errors import Tampered, Unavailable
from remit_contracts.identity import PLATFORM_TENANT, is_label, label

if TYPE_CHECKING:
    from nats.aio.client import Client

    from remit_chassis.keyring import UserKeys

_READERS = 4  # threads


class Host(Protocol):
    """What the stores need of their service."""

    @property
    def name(self) -> str:
        """The service's token in subjects."""

    @property
    def inbox(self) -> str:
        """The prefix of its inbox."""

    @property
    def settings(self) -> ServiceSettings:
        """Where its files and the bus are."""

    @property
    def clock(self) -> Callable[[], datetime]:
        """Aware instants."""


class EventStores:
    """Made on a running loop. The stores lie in PostgreSQL when `postgres_dsn_file` is set, else in `store_dir`."""

    def __init__(self, service: Host, keys: UserKeys, *, alarm: Alarm = log_alarm) -> None:
        self._service = service
        self._keys = keys
        self._alarm = alarm
        self._relay_key = read_hex_secret(service.settings.relay_key_file)
        self._dsn = service.settings.postgres_dsn_file and service.settings.postgres_dsn_file.read_text().strip()
        self._readers = ThreadPoolExecutor(_READERS, "event-reads")
        self._link = Link(self._connect)
        self._stores: dict[str, EventStore] = {}
        self._relays: dict[str, Relay] = {}

    def of(self, tenant: str) -> EventStore:
        """The tenant's store; a new one is made and opened by its first use, and its relay started."""
        store = self._stores.get(tenant)
        if store is None:
            chain = Chain(self._service.name, label(tenant, kind="tenant"))
            store = self._stores[tenant] = EventStore(
                chain, partial(self._recorder, chain), self._keys, clock=self._service.clock, readers=self._readers
            )
            self._relays[tenant] = Relay(store, self._link, self._relay_key, alarm=self._alarm)
        return store

    def tenants(self) -> list[str]:
        """Tenants with a store, in order. Blocks for a moment with PostgreSQL."""
        if self._dsn:
            from remit_chassis.eventstore.postgres import tenants_with_store

            found = tenants_with_store(self._dsn, self._service.name)
        else:
            found = [path.stem for path in self._service.settings.store_dir.glob("*.sqlite")]
        return sorted({*filter(is_label, found), *self._stores})

    def relay(self, tenant: str) -> Relay:
        """The relay of the tenant's store."""
        self.of(tenant)
        return self._relays[tenant]

    async def open(self) -> None:
        """Open every store that there is or was, and so start its relay; wait until each was compared with its stream.

        One that was tampered with, or that its stream contradicts, refuses its own tenant and holds up no other: its
        relay raises the alarm. Raises Unavailable.
        """
        for found in (self._in_storage, self._on_the_bus):
            for tenant in await found():
                with suppress(Tampered):
                    await self.of(tenant).open()
        with suppress(TimeoutError):  # a stream that does not answer keeps the service from being ready: see `probe`
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*(store.compared() for store in self._stores.values()))

    async def _in_storage(self) -> list[str]:
        return sorted({PLATFORM_TENANT, *await asyncio.to_thread(self.tenants)})

    async def _on_the_bus(self) -> list[str]:
        """Tenants without a store whose stream holds events of this service: the store was lost."""
        name = self._service.name
        try:
            connection = await self._link.connection()
            without = set(subjects.tenants_of_streams(await connection.streams())) - self._stores.keys()
            return [
                tenant
                for tenant in sorted(without)
                if await connection.last(subjects.events_stream(tenant), subjects.events_of_service(tenant, name))
            ]
        except (LinkLost, NoStream) as fault:
            raise Unavailable(f"the streams of {name} cannot be looked at: {fault}") from fault

    async def confirmed(self, tenant: str) -> None:
        """Return when a tenant may be answered; raises Contradicted, or NotCompared.

        At once for a tenant without a store here: one that is made by the answer is compared before it takes a save.
        """
        store = self._stores.get(tenant)
        if store is not None and store.fault:
            await store.confirmed()

    def contradiction(self, tenant: str) -> str:
        """Why this tenant is refused, or ""."""
        store = self._stores.get(tenant)
        return store.contradiction if store is not None else ""

    def contradictions(self) -> dict[str, str]:
        """Tenant -> why it is refused; empty while all is well."""
        return {tenant: store.contradiction for tenant, store in self._stores.items() if store.contradiction}

    async def probe(self) -> None:
        """Write and sync to the platform's store, and to every store with a fault; raises Unavailable.

        A contradicted store is no reason not to serve the others, but the platform's own is: that raises Contradicted.
        """
        faulty = {store for store in self._stores.values() if store.fault and not store.contradiction}
        for store in {self.of(PLATFORM_TENANT), *faulty}:
            await store.probe()

    async def republish(self, tenant: str, first: int, last: int) -> int:
        """Publish a range of the tenant's log again; returns how many events. Raises Contradicted, or Unavailable."""
        return await self.relay(tenant).republish(first, last)

    async def close(self) -> None:
        """Store what waits, end the relays, let go of databases and bus."""
        await asyncio.gather(*(store.close() for store in self._stores.values()))
        await asyncio.gather(*(relay.stop() for relay in self._relays.values()))
        await self._link.close()
        self._readers.shutdown()

    def _recorder(self, chain: Chain) -> Recorder:
        if self._dsn:
            from remit_chassis.eventstore.postgres import open_postgres

            return open_postgres(self._dsn, chain)
        return open_sqlite(self._service.settings.store_dir / f"{chain.tenant}.sqlite", chain)

    async def _connect(self, **options: Any) -> Client:
        from nats.aio.client import Client

        settings = self._service.settings
        client = Client()
        try:
            await client.connect(
                settings.nats_url,
                name=f"{self._service.name} relay",
                nkeys_seed=str(settings.nkey_file),
                inbox_prefix=self._service.inbox,
                tls=settings.nats_tls(),
                **options,
            )
        except BaseException:
            await client.close()  # the library leaves the socket of a refused connection open
            raise
        return client
