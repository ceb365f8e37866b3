"""A denied decision, as it is recorded. An allowed one is recorded by whoever acts on it, inside its own fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from eventsourcing.domain import Aggregate


class Decision(Aggregate):
    """One decision; its id is the decision id."""

    TOPIC = "policy.Decision"

    def __init__(
        self,
        engine_input: dict[str, Any],
        reasons: list[dict[str, str]],
        bundle_digest: str,
        data_revision: str,
    ) -> None:
        self.engine_input = engine_input
        self.reasons = reasons
        self.bundle_digest = bundle_digest
        self.data_revision = data_revision

    @classmethod
    def deny(
        cls,
        *,
        decision_id: UUID,
        engine_input: Mapping[str, Any],
        reasons: Sequence[Mapping[str, str]],
        bundle_digest: str,
        data_revision: str,
        at: datetime,
    ) -> Decision:
        """What was asked, exactly as the engine saw it, and why it was refused: enough to decide it again."""
        return cls._create(
            cls.Denied,
            id=decision_id,
            timestamp=at,
            engine_input=dict(engine_input),
            reasons=[dict(reason) for reason in reasons],
            bundle_digest=bundle_digest,
            data_revision=data_revision,
        )

    class Event(Aggregate.Event):
        """Something that happened to it."""

    class Denied(Event, Aggregate.Created):
        """Refused. A reason is `{"code", "message"}`."""

        TOPIC = "policy.Decision.Denied"
        engine_input: dict[str, Any]
        reasons: list[dict[str, str]]
        bundle_digest: str
        data_revision: str

    Created = Denied  # the library would make one more event of this name
