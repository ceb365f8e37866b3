"""What the audit service itself records: that a trail was read, and that something is wrong.

Both are facts, each an aggregate of one event: nothing is decided about them later.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.domain import Aggregate

_ALARMS = uuid5(NAMESPACE_URL, "https://remit.invalid/audit/alarms")

Purpose = Literal["show", "verify", "prove"]


class TrailReading(Aggregate):
    """Somebody read a trail; stored as an event of the reader."""

    TOPIC = "audit.TrailReading"

    class Event(Aggregate.Event):
        """Something that happened to it."""

    class Read(Event, Aggregate.Created):
        """`of` is whose trail; `decision` is the whole decision, and empty for one's own, which needs none."""

        TOPIC = "audit.TrailReading.Read"
        of: str
        purpose: Purpose
        session: str
        after: int | None
        limit: int | None
        decision: dict[str, Any]

    Created = Read  # the library would make one more event of this name

    def __init__(
        self, *, of: str, purpose: Purpose, session: str, after: int | None, limit: int | None, decision: dict[str, Any]
    ) -> None:
        self.of = of
        self.purpose = purpose
        self.session = session
        self.after = after
        self.limit = limit
        self.decision = decision

    @classmethod
    def record(
        cls,
        *,
        reading_id: UUID,
        of: str,
        purpose: Purpose,
        session: str,
        after: int | None,
        limit: int | None,
        decision: dict[str, Any],
        at: datetime,
    ) -> TrailReading:
        """The reading, before anything is shown."""
        return cls._create(
            cls.Created,
            id=reading_id,
            timestamp=at,
            of=of,
            purpose=purpose,
            session=session,
            after=after,
            limit=limit,
            decision=decision,
        )


class Alarm(Aggregate):
    """Something is wrong with a record or a copy; stored as an event of the tenant's `system`."""

    TOPIC = "audit.Alarm"

    class Event(Aggregate.Event):
        """Something that happened to it."""

    class Raised(Event, Aggregate.Created):
        """The fields of a fault (`remit_contracts.trails.Fault`); no single record is meant without
        `notification_id`."""

        TOPIC = "audit.Alarm.Raised"
        found_in: str
        code: str
        reason: str
        service: str
        notification_id: int | None

    Created = Raised

    def __init__(self, *, found_in: str, code: str, reason: str, service: str, notification_id: int | None) -> None:
        self.found_in = found_in
        self.code = code
        self.reason = reason
        self.service = service
        self.notification_id = notification_id

    @classmethod
    def about(
        cls,
        *,
        alarm_id: UUID,
        found_in: str,
        code: str,
        reason: str,
        service: str,
        notification_id: int | None,
        at: datetime,
    ) -> Alarm:
        """An alarm under an id that its matter gives: see `alarm_id`."""
        return cls._create(
            cls.Created,
            id=alarm_id,
            timestamp=at,
            found_in=found_in,
            code=code,
            reason=reason,
            service=service,
            notification_id=notification_id,
        )


def alarm_id(*matter: object) -> UUID:
    """The same matter gives the same id, so that it is stored once, restarts included."""
    return uuid5(_ALARMS, "|".join(map(repr, matter)))
