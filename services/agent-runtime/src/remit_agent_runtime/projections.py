"""Read models of runs, rebuilt from the events alone: which are still owed, and each user's list.

What happened is in an event's topic, readable without a key; only the agent's name and the instants that a run itself
tells are decrypted, and only for the list: an event is recorded a moment after it happened.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from remit_agent_runtime import facts
from remit_contracts.errors import Tampered
from remit_contracts.events import Envelope
from remit_contracts.runs import RunRow, RunStatus

if TYPE_CHECKING:
    from remit_chassis.eventstore.store import EventStore

PAGE: Final = 1_000
KEPT_USERS: Final = 1_000

STATUS_AFTER: Final[dict[str, RunStatus]] = {
    facts.Accepted.TOPIC: "accepted",
    facts.Started.TOPIC: "running",
    facts.Completed.TOPIC: "completed",
    facts.Failed.TOPIC: "failed",
    facts.Cancelled.TOPIC: "cancelled",
}
"""The status that an event gives; the other events leave it as it is."""

_ENDS: Final = frozenset({facts.Completed.TOPIC, facts.Failed.TOPIC, facts.Cancelled.TOPIC})


@dataclass(slots=True)
class OwedRun:
    """A run without an end. `last_event_at` is RFC 3339 in UTC, as stored."""

    user: str
    last_event_at: str


class OwedRuns:
    """The runs of one tenant that have not ended, as of the last `catch_up`."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._seen = 0
        self.runs: dict[UUID, OwedRun] = {}

    async def catch_up(self) -> None:
        """Read what was stored since."""
        while page := await self._store.read(self._seen + 1, PAGE):
            for envelope in page:
                self._apply(envelope)
            self._seen = page[-1].notification_id

    def _apply(self, envelope: Envelope) -> None:
        run_id = UUID(hex=envelope.originator_id)
        if envelope.topic == facts.Accepted.TOPIC:
            self.runs[run_id] = OwedRun(envelope.user, envelope.recorded_at)
        elif envelope.topic in _ENDS:
            self.runs.pop(run_id, None)
        elif run_id in self.runs:
            self.runs[run_id].last_event_at = envelope.recorded_at


@dataclass(slots=True)
class _Row:
    run_id: str
    agent: str
    accepted_at: datetime
    status: RunStatus = "accepted"
    ended_at: datetime | None = None


class _UserRuns:
    """One user's runs, in the order of their acceptance."""

    def __init__(self) -> None:
        self.seen = 0
        self.rows: dict[str, _Row] = {}


class RunLists:
    """Users' lists, each read on when asked for; of the users who asked last, KEPT_USERS are kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _UserRuns] = OrderedDict()

    async def newest(self, store: EventStore, tenant: str, user: str, limit: int) -> list[RunRow]:
        """Up to `limit` rows, newest first; what was durable when this was asked is in it."""
        kept = self._kept.pop((tenant, user), None) or _UserRuns()
        self._kept[tenant, user] = kept
        if len(self._kept) > KEPT_USERS:
            self._kept.popitem(last=False)
        while page := await store.of_user(user, kept.seen, PAGE):
            for envelope in page:
                if envelope.notification_id <= kept.seen:  # two requests read on at the same time
                    continue
                await self._apply(store, kept, envelope)
                kept.seen = max(kept.seen, envelope.notification_id)
        newest = list(kept.rows.values())[: -limit - 1 : -1]
        return [
            RunRow(
                run_id=row.run_id,
                agent=row.agent,
                status=row.status,
                accepted_at=row.accepted_at,
                ended_at=row.ended_at,
            )
            for row in newest
        ]

    async def _apply(self, store: EventStore, kept: _UserRuns, envelope: Envelope) -> None:
        if envelope.topic == facts.Accepted.TOPIC:
            event = await store.decode(envelope)
            if not isinstance(event, facts.Accepted):
                raise Tampered(f"event {envelope.notification_id} says that it is a run's acceptance and is none")
            new = _Row(envelope.originator_id, str(event.agent.get("name", "")), event.timestamp)
            kept.rows.setdefault(envelope.originator_id, new)
        elif (status := STATUS_AFTER.get(envelope.topic)) and (row := kept.rows.get(envelope.originator_id)):
            row.status = status
            if envelope.topic in _ENDS:
                row.ended_at = (await store.decode(envelope)).timestamp
