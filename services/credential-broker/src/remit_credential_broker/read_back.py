"""Reading back at start what the stores hold: connections, used permits, leases that are still live."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from remit_chassis.permits import CLOCK_SKEW_SECONDS
from remit_contracts.errors import Absent, Tampered
from remit_contracts.events import Envelope
from remit_contracts.permits import TTL_SECONDS
from remit_credential_broker.domain import Connection
from remit_credential_broker.leases import Lease
from remit_credential_broker.live_leases import LiveLease, LiveLeases
from remit_credential_broker.projections import ConnectionBook
from remit_credential_broker.settings import MAX_LEASE_SECONDS
from remit_credential_broker.used_permits import UsedPermits
from remit_credential_broker.vault import Secrets

if TYPE_CHECKING:
    from remit_chassis.eventstore.store import EventStore

READ_AT_ONCE: Final = 1_000
_OF_CONNECTIONS: Final = f"{Connection.TOPIC}."


class ReadBack:
    """Fills the three from the stores. `monotonic` is the clock of `live`."""

    def __init__(
        self,
        *,
        book: ConnectionBook,
        used: UsedPermits,
        live: LiveLeases,
        secrets: Secrets,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._book = book
        self._used = used
        self._live = live
        self._secrets = secrets
        self._clock = clock
        self._monotonic = monotonic

    async def run(self, tenants: Iterable[str], store_of: Callable[[str], EventStore]) -> datetime:
        """Read every tenant's log; returns the instant that permits must be younger than.

        It is now, or the last recorded event's if that is later: then a clock was set back, and a permit that was used
        before the restart might seem to have been issued after it.
        """
        latest = self._clock()
        for tenant in tenants:
            store = store_of(tenant)
            try:
                latest = max(latest, await self._read_tenant(tenant, store))
            except Tampered as fault:  # which permits were used is not known: the tenant is refused, and no other
                store.condemn(fault.reason)
        return latest

    async def _read_tenant(self, tenant: str, store: EventStore) -> datetime:
        connections: dict[str, Connection] = {}
        first, last = 1, self._clock()
        while envelopes := await store.read(first, READ_AT_ONCE):
            for envelope in envelopes:
                if envelope.topic.startswith(_OF_CONNECTIONS):
                    await self._read_connection(store, envelope, connections)
                elif envelope.topic == Lease.Issued.TOPIC:
                    await self._read_lease(store, envelope)
            first = envelopes[-1].notification_id + 1
            last = datetime.fromisoformat(envelopes[-1].recorded_at)
        for connection in connections.values():
            self._book.put(tenant, connection)
            if not connection.active:  # its destruction may have been cut short
                await self._secrets.destroy_leftover(tenant, connection.owner, connection.secret_id)
        return last

    async def _read_connection(self, store: EventStore, envelope: Envelope, connections: dict[str, Connection]) -> None:
        try:
            event = await store.decode(envelope)
        except Absent:  # its owner was erased, and its secret with them
            return
        changed = event.mutate(connections.get(envelope.originator_id))
        if isinstance(changed, Connection):
            connections[envelope.originator_id] = changed

    async def _read_lease(self, store: EventStore, envelope: Envelope) -> None:
        recorded_at = datetime.fromisoformat(envelope.recorded_at).timestamp()
        expires = recorded_at + TTL_SECONDS + CLOCK_SKEW_SECONDS  # it was in force when it was recorded
        self._used.take(envelope.originator_id, expires=expires, now=recorded_at)
        now = self._clock().timestamp()
        if recorded_at + MAX_LEASE_SECONDS < now:
            return
        try:
            event = await store.decode(envelope)
        except Absent:
            return
        if isinstance(event, Lease.Issued):
            left = event.timestamp.timestamp() + event.ttl_seconds - now
            self._live.add(
                LiveLease(
                    event.originator_id,
                    envelope.tenant,
                    envelope.user,
                    UUID(event.connection_id),
                    self._monotonic() + left,
                )
            )
