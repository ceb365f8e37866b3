"""Whatever saves meet in one transaction: numbers have no gap, the chain is whole, and each conflict fails its own."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from eventsourcing.persistence import IntegrityError, StoredEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.chassis_eventstore.documents import CHAIN

from remit_chassis.eventstore.chain import Head, Save, first_break
from remit_chassis.eventstore.recorders import open_sqlite

saves = st.builds(
    lambda aggregate, first, count, line: Save(
        "u-1",
        [StoredEvent(UUID(int=aggregate), first + n, "lab.Document.Edited", b"state") for n in range(count)],
        line,
    ),
    aggregate=st.integers(0, 3),
    first=st.integers(1, 4),
    count=st.integers(1, 3),
    line=st.integers(0, 2),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(saves, min_size=1, max_size=8), min_size=1, max_size=6))
def test_groups_with_conflicts_never_leave_a_gap(groups: list[list[Save]]) -> None:
    with TemporaryDirectory() as directory:
        recorder = open_sqlite(Path(directory) / "lab.sqlite", CHAIN)
        taken: set[tuple[UUID | str, int]] = set()
        count = 0
        for group in groups:
            broken: set[int] = set()
            outcomes = recorder.insert_saves(group, "2026-01-31T12:00:00.000000Z")
            for save, outcome in zip(group, outcomes, strict=True):
                versions = {(event.originator_id, event.originator_version) for event in save.events}
                if taken & versions or save.line in broken - {0}:
                    assert isinstance(outcome, IntegrityError)
                    broken.add(save.line)
                else:
                    assert not isinstance(outcome, IntegrityError)
                    assert [envelope.notification_id for envelope in outcome] == [
                        count + n for n in range(1, len(versions) + 1)
                    ]
                    taken |= versions
                    count += len(versions)
        envelopes = recorder.select_envelopes(1, count + 1)
        assert len(envelopes) == count
        assert first_break(CHAIN, Head(), envelopes) is None
        recorder.close()


def test_a_group_larger_than_one_statement_is_stored_whole() -> None:
    with TemporaryDirectory() as directory:
        recorder = open_sqlite(Path(directory) / "lab.sqlite", CHAIN)
        group = [
            Save("u-1", [StoredEvent(UUID(int=a), v, "lab.Document.Edited", b"state") for v in range(1, 1001)])
            for a in range(4)
        ]
        outcomes = recorder.insert_saves(group, "2026-01-31T12:00:00.000000Z")
        assert [len(outcome) for outcome in outcomes if not isinstance(outcome, IntegrityError)] == [1000] * 4
        assert recorder.head().notification_id == 4000
        recorder.close()
