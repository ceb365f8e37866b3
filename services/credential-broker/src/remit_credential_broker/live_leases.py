"""The leases that have not ended yet, by a clock that cannot be set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID


class LiveLease(NamedTuple):
    """A lease that was issued; `until` is monotonic, in seconds."""

    lease_id: UUID
    tenant: str
    user: str
    connection_id: UUID
    until: float


class LiveLeases:
    """In the order of issue, which is that of expiry: all leases live equally long."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._leases: dict[UUID, LiveLease] = {}
        self._on: defaultdict[UUID, set[UUID]] = defaultdict(set)

    def __len__(self) -> int:
        self._forget()
        return len(self._leases)

    def __contains__(self, lease_id: UUID) -> bool:
        lease = self._leases.get(lease_id)
        return lease is not None and lease.until > self._monotonic()

    def add(self, lease: LiveLease) -> None:
        """A lease that begins now."""
        self._leases[lease.lease_id] = lease
        self._on[lease.connection_id].add(lease.lease_id)
        self._forget()

    def take_of(self, connection_id: UUID) -> list[LiveLease]:
        """End and return all on this connection."""
        self._forget()
        return [self._leases.pop(lease_id) for lease_id in self._on.pop(connection_id, ())]

    def _forget(self) -> None:
        now = self._monotonic()
        while self._leases:
            oldest = next(iter(self._leases.values()))
            if oldest.until > now:
                return
            del self._leases[oldest.lease_id]
            others = self._on[oldest.connection_id]
            others.discard(oldest.lease_id)
            if not others:
                del self._on[oldest.connection_id]
