"""What the audit service opens without knowing an event's class is what the service that wrote it sealed."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from unit.audit.chains import Chain
from unit.audit.recorded_home import accepted

from remit_audit.domain import Alarm, TrailReading, alarm_id
from remit_audit.states import open_state, run_of
from remit_chassis.eventstore.mapper import EncryptingMapper
from remit_contracts.errors import Tampered
from remit_contracts.events import Envelope

KEY = bytes(range(32))
AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def sealed(aggregate: object, user: str = "u-1") -> Envelope:
    (event,) = aggregate.collect_events()  # type: ignore[attr-defined]
    stored = EncryptingMapper("acme").seal(event, user, KEY)
    return msgspec.structs.replace(
        Chain("audit").event(user=user),
        originator_id=stored.originator_id.hex,
        originator_version=stored.originator_version,
        topic=stored.topic,
        state=stored.state,
    ).sealed()


def reading() -> TrailReading:
    return TrailReading.record(
        reading_id=UUID(int=1),
        of="u-2",
        purpose="show",
        session="s-1",
        after=3,
        limit=10,
        decision={"decision_id": "d"},
        at=AT,
    )


def test_a_state_opens_to_its_fields_as_plain_json() -> None:
    data = open_state(sealed(reading()), KEY)
    assert {name: data[name] for name in ("of", "purpose", "session", "after", "limit", "decision")} == {
        "of": "u-2",
        "purpose": "show",
        "session": "s-1",
        "after": 3,
        "limit": 10,
        "decision": {"decision_id": "d"},
    }
    assert data["timestamp"] == "2026-01-31T09:30:00+00:00"
    assert "~" not in data


@pytest.mark.parametrize(
    "change", [{"user": "u-2"}, {"topic": "audit.Alarm.Raised"}, {"originator_version": 2}, {"state": b""}]
)
def test_a_state_that_was_moved_does_not_open(change: dict[str, object]) -> None:
    with pytest.raises(Tampered):
        open_state(msgspec.structs.replace(sealed(reading()), **change), KEY)


def test_a_run_s_event_belongs_to_the_run_that_it_is_or_names() -> None:
    run = sealed(accepted("u-1", 7))
    assert run_of(run, {}) == UUID(int=7).hex
    assert run_of(sealed(reading()), {"run": "r-1"}) == "r-1"
    assert run_of(sealed(reading()), {"run": ""}) is None


def test_the_same_alarm_has_the_same_id_and_another_episode_another() -> None:
    assert alarm_id("acme", "x", "") == alarm_id("acme", "x", "") != alarm_id("acme", "x", "1")
    alarm = Alarm.about(
        alarm_id=alarm_id("x"),
        found_in="stream",
        code="record.forked",
        reason="two",
        service="auth",
        notification_id=4,
        at=AT,
    )
    assert open_state(sealed(alarm), KEY)["notification_id"] == 4
