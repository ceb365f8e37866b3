"""How a service's events in one tenant are numbered and linked, and where such a chain breaks.

Numbers start at 1 and have no gap: they are assigned here from the head, under the database's write lock, never by a
sequence of the database (a rolled-back transaction would leave a gap there).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from eventsourcing.persistence import IntegrityError, StoredEvent

from remit_contracts.events import GENESIS, Envelope


class Chain(NamedTuple):
    """Whose chain it is."""

    service: str
    tenant: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.service}"


class Head(NamedTuple):
    """The last event of a chain: its number (0 before the first) and its hash (32 bytes)."""

    notification_id: int = 0
    hash: bytes = GENESIS


class Save(NamedTuple):
    """Events of one aggregate that are stored together or not at all.

    Saves with the same non-zero `line` follow from one another: when one fails, those after it fail too.
    """

    user: str
    events: Sequence[StoredEvent]
    line: int = 0


Outcome = Sequence[Envelope] | IntegrityError
"""What became of a save: its envelopes as stored, or why it alone was refused."""


class Recorder(Protocol):
    """What the store needs of a database. Everything blocks; faults are the library's PersistenceError."""

    def insert_saves(self, saves: Sequence[Save], recorded_at: str) -> Sequence[Outcome]:
        """Store all saves in one transaction, durable on return; a conflict refuses its own save only."""

    def select_envelopes(self, first: int, limit: int) -> Sequence[Envelope]:
        """Up to `limit` events from number `first` on, in order."""

    def select_envelopes_of_user(self, user: str, after: int, limit: int) -> Sequence[Envelope]:
        """One user's events numbered above `after`, in order."""

    def select_envelopes_of_aggregate(self, originator_id: UUID) -> Sequence[Envelope]:
        """All events of an aggregate by version."""

    def head(self) -> Head:
        """The last event as the database has it."""

    def probe(self) -> None:
        """Write and sync something that is no event."""

    def close(self) -> None:
        """Let go of every connection."""


def instant(moment: datetime) -> str:
    """`recorded_at` as envelopes spell it: UTC, microseconds, `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def link(chain: Chain, head: Head, saves: Iterable[Save], recorded_at: str) -> tuple[list[list[Envelope]], Head]:
    """Number, link and hash the events of `saves` after `head`: the envelopes of each save, and the new head."""
    service, tenant = chain
    number, previous = head
    linked = []
    for user, events, _ in saves:
        envelopes = []
        for event in events:
            number += 1
            envelope = Envelope(
                service=service,
                tenant=tenant,
                user=user,
                notification_id=number,
                originator_id=event.originator_id.hex if isinstance(event.originator_id, UUID) else event.originator_id,
                originator_version=event.originator_version,
                topic=event.topic,
                recorded_at=recorded_at,
                state=event.state,
                prev_hash=previous,
            ).sealed()
            previous = envelope.hash
            envelopes.append(envelope)
        linked.append(envelopes)
    return linked, Head(number, previous)


def row_of(envelope: Envelope) -> tuple[object, ...]:
    """An envelope as a row of a recorder's table, in the order of its columns."""
    return (
        envelope.notification_id,
        envelope.originator_id,
        envelope.originator_version,
        envelope.topic,
        envelope.state,
        envelope.tenant,
        envelope.user,
        envelope.recorded_at,
        envelope.prev_hash,
        envelope.hash,
    )


def first_break(chain: Chain, after: Head, envelopes: Iterable[Envelope]) -> int | None:
    """The number at which `envelopes` stop following `after` unaltered, or None.

    A missing event is reported by its own number. A chain cut off at its end is whole in itself: only a witness (the
    stream, the ledger) can tell.
    """
    number, previous = after
    for envelope in envelopes:
        number += 1
        if (
            envelope.notification_id != number
            or envelope.prev_hash != previous
            or (envelope.service, envelope.tenant) != chain
            or not envelope.intact
        ):
            return number
        previous = envelope.hash
    return None
