"""The `eventsourcing` library's own recorder cases, on our SQLite recorder."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import TestCase

from eventsourcing.sqlite import SQLiteProcessRecorder, SQLiteTrackingRecorder
from unit.chassis_eventstore.documents import CHAIN
from unit.chassis_eventstore.library_cases import persistence

from remit_chassis.eventstore.chain import Head, first_break
from remit_chassis.eventstore.recorders import ChainDatastore, SQLiteEventRecorder


class RecorderWithoutNumbers(SQLiteEventRecorder):
    """The library's aggregate recorder returns none; ours is an application recorder and does."""

    def _insert_events(self, *args: Any, **kwargs: Any) -> Any:
        super()._insert_events(*args, **kwargs)


class ProcessRecorder(SQLiteProcessRecorder, SQLiteEventRecorder):
    """Ours under the library's tracking, both in one transaction: it fits because it keeps to the library's seams."""


class OnAFile(TestCase):
    """A recorder on a file of its own, whose chain must be whole when the case is done."""

    recorder_class: type[Any] = SQLiteEventRecorder

    def create_recorder(self) -> Any:
        directory = self.enterContext(TemporaryDirectory())
        recorder = self.recorder_class(ChainDatastore(Path(directory) / "lab.sqlite", CHAIN))
        recorder.create_table()
        self.addCleanup(recorder.datastore.close)
        if isinstance(recorder, SQLiteEventRecorder):
            self.addCleanup(self.check_chain, recorder)
        return recorder

    def check_chain(self, recorder: SQLiteEventRecorder) -> None:
        count = recorder.head().notification_id
        envelopes = recorder.select_envelopes(1, count + 1)
        assert len(envelopes) == count
        assert first_break(CHAIN, Head(), envelopes) is None


class TestAggregateRecorder(OnAFile, persistence.AggregateRecorderTestCase):
    recorder_class = RecorderWithoutNumbers


class TestApplicationRecorder(OnAFile, persistence.ApplicationRecorderTestCase):
    pass


class TestNonInterleaving(OnAFile, persistence.NonInterleavingNotificationIDsBaseCase):
    pass


class TestProcessRecorder(OnAFile, persistence.ProcessRecorderTestCase):
    recorder_class = ProcessRecorder


class TestTrackingRecorder(OnAFile, persistence.TrackingRecorderTestCase):
    recorder_class = SQLiteTrackingRecorder
