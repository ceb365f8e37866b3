"""A user's leases, newest first, read from the store backwards in growing stretches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from uuid import UUID

from remit_contracts.events import Envelope
from remit_contracts.identity import Caller
from remit_contracts.leases import LeaseRow, LeasesListed, LeaseStatus
from remit_credential_broker.lease_records import LeaseRecords
from remit_credential_broker.leases import Lease
from remit_credential_broker.live_leases import LiveLeases

if TYPE_CHECKING:
    from remit_chassis.eventstore.store import EventStore

FIRST_STRETCH: Final = 2_000
LONGEST_STRETCH: Final = 50_000


class LeaseHistory:
    """Leases of all tenants, one user's at a time."""

    def __init__(self, store_of: Callable[[str], EventStore], records: LeaseRecords, live: LiveLeases) -> None:
        self._store_of = store_of
        self._records = records
        self._live = live

    async def newest(self, caller: Caller, limit: int) -> LeasesListed:
        """The caller's own."""
        await self._records.settled()
        store = self._store_of(caller.tenant)
        issued, revoked = await self._envelopes(store, caller.user, limit)
        events = [await store.decode(envelope) for envelope in issued]
        rows = [
            self._row(event, event.originator_id.hex in revoked) for event in events if isinstance(event, Lease.Issued)
        ]
        return LeasesListed(leases=tuple(rows))

    async def _envelopes(self, store: EventStore, user: str, limit: int) -> tuple[list[Envelope], set[str]]:
        """The newest `limit` issues, newest first, and the ids of leases that were revoked."""
        issued: list[Envelope] = []
        revoked: set[str] = set()
        await store.open()
        upto, stretch = store.head().notification_id, FIRST_STRETCH
        while upto > 0 and len(issued) < limit:
            after = max(0, upto - stretch)
            for envelope in reversed(await store.of_user(user, after, upto - after)):
                if envelope.notification_id > upto:
                    continue
                if envelope.topic == Lease.Issued.TOPIC:
                    issued.append(envelope)
                elif envelope.topic == Lease.Revoked.TOPIC:
                    revoked.add(envelope.originator_id)
            upto, stretch = after, min(stretch * 4, LONGEST_STRETCH)
        return issued[:limit], revoked

    def _row(self, event: Lease.Issued, revoked: bool) -> LeaseRow:
        lease: Lease | None = event.mutate(None)
        if lease is None:
            raise TypeError(f"{event} makes no lease")
        status: LeaseStatus = "revoked" if revoked else "live" if UUID(lease.id.hex) in self._live else "expired"
        return LeaseRow(
            lease_id=lease.id.hex,
            connection=lease.connection,
            tool=lease.tool,
            run=lease.run,
            scopes=lease.scopes,
            status=status,
            issued_at=lease.created_on,
            expires_at=lease.expires_at,
        )
