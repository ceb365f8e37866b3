"""Intact envelopes, chained as a service's store would, for tests of the ledger."""

from __future__ import annotations

from collections.abc import Iterator

from remit_contracts.events import GENESIS, Envelope


class Chain:
    """One service's log in one tenant."""

    def __init__(self, service: str = "auth", tenant: str = "acme") -> None:
        self.service = service
        self.tenant = tenant
        self.number = 0
        self.last = GENESIS

    def event(self, state: bytes = b"sealed", *, user: str = "u-1", topic: str = "auth.User.Registered") -> Envelope:
        """The next event."""
        self.number += 1
        envelope = Envelope(
            service=self.service,
            tenant=self.tenant,
            user=user,
            notification_id=self.number,
            originator_id=f"{self.number:032x}",
            originator_version=1,
            topic=topic,
            recorded_at="2026-01-31T09:30:00.000000Z",
            state=state,
            prev_hash=self.last,
        ).sealed()
        self.last = envelope.hash
        return envelope

    def events(self, count: int) -> list[Envelope]:
        """The next `count` events, of three users in turn."""
        return list(self._events(count))

    def _events(self, count: int) -> Iterator[Envelope]:
        for number in range(count):
            yield self.event(b"sealed %d" % self.number, user=f"u-{number % 3}")
