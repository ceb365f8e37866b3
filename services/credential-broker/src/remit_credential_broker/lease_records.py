"""What becomes of leases, written down: issued without being waited for, refused and revoked with.

Events of leases that were issued are gathered for a moment, so that the answers go out first and many share a
transaction. A lease whose event could not be stored is stored before the next one of its tenant is issued, or none is.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import structlog

from remit_contracts.errors import Absent, Conflict, Refusal
from remit_contracts.fast_leases import LeaseRequest
from remit_contracts.identity import Caller
from remit_contracts.leases import LeaseRefused
from remit_credential_broker.leases import Lease, LeaseRefusal
from remit_credential_broker.live_leases import LiveLease, LiveLeases

if TYPE_CHECKING:
    from remit_chassis.eventstore.store import EventStore

MAX_REASON_CHARACTERS: Final = 500
REVOKED_AT_ONCE: Final = 256
GATHER_SECONDS: Final = 0.02

Facts = dict[str, Any]
"""The arguments of `Lease.issue`."""


class LeaseRecords:
    """The stores' side of leasing, for all tenants."""

    def __init__(
        self, *, store_of: Callable[[str], EventStore], live: LiveLeases, clock: Callable[[], datetime]
    ) -> None:
        self._store_of = store_of
        self._live = live
        self._clock = clock
        self._unrecorded: defaultdict[str, list[tuple[str, Facts]]] = defaultdict(list)
        self._gathered: list[tuple[Facts, Caller]] = []
        self._saving: set[asyncio.Future[int]] = set()

    async def require_writable(self, tenant: str) -> None:
        """Raises Unavailable unless all that was issued is stored and more can be."""
        store = self._store_of(tenant)
        if store.fault:
            await store.probe()
        if self._unrecorded.get(tenant):
            await self._make_good(tenant, store)

    def issued(self, facts: Facts, connection_id: UUID, until: float, caller: Caller) -> None:
        """Note it, to be recorded within GATHER_SECONDS; `until` is monotonic."""
        self._live.add(LiveLease(facts["lease_id"], caller.tenant, caller.user, connection_id, until))
        self._gathered.append((facts, caller))
        if len(self._gathered) == 1:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._save_gathered)

    def _save_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        for facts, caller in gathered:
            try:
                self._save(facts, caller)
            except Exception:  # none of the others may be lost with it
                structlog.get_logger().exception(
                    "lease.unrecorded", lease_id=facts["lease_id"].hex, tenant=caller.tenant
                )
                self._unrecorded[caller.tenant].append((caller.user, facts))

    def _save(self, facts: Facts, caller: Caller) -> None:
        recorded = self._store_of(caller.tenant).save_later(Lease.issue(**facts), user=caller.user)
        self._saving.add(recorded)
        recorded.add_done_callback(partial(self._note, caller, facts))

    async def settled(self) -> None:
        """Return when what was issued until now is stored, or known not to be."""
        self._save_gathered()
        if self._saving:
            await asyncio.wait(list(self._saving))

    def _note(self, caller: Caller, facts: Facts, recorded: asyncio.Future[int]) -> None:
        self._saving.discard(recorded)
        if recorded.cancelled() or (fault := recorded.exception()) is None:
            return
        if isinstance(fault, Conflict):  # another process lent against the same permit
            structlog.get_logger().error("lease.issued_twice", lease_id=facts["lease_id"].hex, tenant=caller.tenant)
            return
        structlog.get_logger().error(
            "lease.unrecorded", lease_id=facts["lease_id"].hex, tenant=caller.tenant, fault=str(fault)
        )
        self._unrecorded[caller.tenant].append((caller.user, facts))

    async def _make_good(self, tenant: str, store: EventStore) -> None:
        waiting = self._unrecorded.pop(tenant)
        while waiting:
            user, facts = waiting[-1]
            try:
                await store.save(Lease.issue(**facts), user=user)
            except Conflict:
                structlog.get_logger().info("lease.was_recorded", lease_id=facts["lease_id"].hex, tenant=tenant)
            except Absent:
                structlog.get_logger().error("lease.of_erased_user", lease_id=facts["lease_id"].hex, tenant=tenant)
            except BaseException:
                self._unrecorded[tenant].extend(waiting)
                raise
            waiting.pop()

    async def make_all_good(self) -> None:
        """Before the end: what is still unrecorded, as far as the stores take it."""
        await self.settled()
        for tenant in list(self._unrecorded):
            try:
                await self.require_writable(tenant)
            except Refusal as fault:
                structlog.get_logger().error("lease.unrecorded_at_stop", tenant=tenant, fault=fault.reason)

    async def refused(self, refusal: LeaseRefused, request: LeaseRequest, jti: str | None, caller: Caller) -> None:
        """On disk before it is answered, where it can be: the answer is no either way."""
        record = LeaseRefusal.record(
            code=refusal.refusal_code,
            reason=refusal.reason[:MAX_REASON_CHARACTERS],
            jti=jti,
            run=request.run,
            tool=request.tool,
            connection=request.connection,
            at=self._clock(),
        )
        try:
            await self._store_of(caller.tenant).save(record, user=caller.user)
        except Refusal as fault:
            structlog.get_logger().error(
                "lease.refusal_unrecorded", code=refusal.refusal_code, tenant=caller.tenant, fault=fault.reason
            )

    async def revoke_on(self, connection_id: UUID) -> None:
        """End every lease on a connection; what is under way at the tool host ends by its expiry."""
        ended = self._live.take_of(connection_id)
        await self.settled()
        for first in range(0, len(ended), REVOKED_AT_ONCE):
            await asyncio.gather(*map(self._revoke, ended[first : first + REVOKED_AT_ONCE]))

    async def _revoke(self, ended: LiveLease) -> None:
        store = self._store_of(ended.tenant)
        try:
            lease = await store.load(Lease, ended.lease_id)
            lease.revoke(reason="the connection was revoked", at=self._clock())
            await store.save(lease, user=ended.user)
        except Refusal as fault:
            structlog.get_logger().error(
                "lease.revocation_unrecorded", lease_id=ended.lease_id.hex, tenant=ended.tenant, fault=fault.reason
            )
