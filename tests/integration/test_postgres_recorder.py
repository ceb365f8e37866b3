"""The PostgreSQL recorder on a real server: the library's own cases, and the store in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, current_thread
from typing import Any
from unittest import TestCase
from uuid import uuid4

import pytest
from eventsourcing.persistence import StoredEvent
from integration.postgres_server import databases, dsn
from unit.chassis_eventstore.documents import Document, Keys, open_store
from unit.chassis_eventstore.library_cases import persistence

from remit_chassis.eventstore.chain import Chain, Head, Save, first_break
from remit_chassis.eventstore.postgres import ChainDatastore, PostgresEventRecorder, open_postgres, tenants_with_store
from remit_contracts.errors import Conflict

__all__ = ["databases", "dsn"]

CHAIN = Chain("lab", "acme")


class OnAServer(TestCase):
    """A recorder in a database of its own, whose chain must be whole when the case is done."""

    @pytest.fixture(autouse=True)
    def _server(self, databases: Any) -> None:
        self.databases = databases

    def create_recorder(self) -> Any:
        recorder = PostgresEventRecorder(ChainDatastore(self.databases(), CHAIN))
        recorder.create_table()
        self.addCleanup(recorder.close)
        self.addCleanup(self.check_chain, recorder)
        return recorder

    def check_chain(self, recorder: PostgresEventRecorder) -> None:
        count = recorder.head().notification_id
        envelopes = recorder.select_envelopes(1, count + 1)
        assert len(envelopes) == count
        assert first_break(CHAIN, Head(), envelopes) is None


class TestAggregateRecorder(OnAServer, persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> Any:
        # The library's aggregate recorder returns no numbers; ours is an application recorder and does.
        recorder = super().create_recorder()
        insert = recorder.insert_events

        def without_numbers(stored_events: Sequence[StoredEvent]) -> None:
            insert(stored_events)

        recorder.insert_events = without_numbers
        return recorder


class TestApplicationRecorder(OnAServer, persistence.ApplicationRecorderTestCase):
    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()

    def test_what_is_stored_before_a_subscription_listens_is_heard_of(self) -> None:
        recorder = self.create_recorder()
        connect, listening = recorder.datastore.get_connection, Event()

        def connect_late(*arguments: Any) -> Any:
            if "_listen" in current_thread().name:
                assert listening.wait(10)
            return connect(*arguments)

        recorder.datastore.get_connection = connect_late
        first, second = (StoredEvent(uuid4(), 1, "lab.Document.Started", b"state") for _ in range(2))
        recorder.insert_events([first])
        with recorder.subscribe(gt=0) as subscription:
            assert next(subscription).originator_id == first.originator_id
            with ThreadPoolExecutor(1) as reader:
                heard = reader.submit(next, subscription)
                recorder.insert_events([second])
                listening.set()
                try:
                    assert heard.result(10).originator_id == second.originator_id
                finally:
                    subscription.stop()


class TestNonInterleaving(OnAServer, persistence.NonInterleavingNotificationIDsBaseCase):
    pass


# -- the store in front of it -----------------------------------------------------------------------------------------


async def test_saves_loads_and_conflicts_are_those_of_the_other_engine(databases: Any, tmp_path: Path) -> None:
    target = databases()
    keys = Keys()
    async with open_store(tmp_path, keys, recorder=lambda: open_postgres(target, CHAIN)) as store:
        document = Document(text="0")
        await store.save(document, user="u-1")

        async def edit(number: int) -> bool:
            mine = await store.load(Document, document.id)
            mine.edit(text=str(number))
            try:
                await store.save(mine, user=f"u-{number}")
            except Conflict:
                return False
            return True

        accepted = sum(await asyncio.gather(*(edit(number) for number in range(20))))
        await asyncio.gather(*(store.save(Document(text="x"), user="u-2") for _ in range(20)))
        assert 1 <= accepted < 20
        assert (await store.load(Document, document.id)).version == accepted + 1
        assert store.head()[0] == accepted + 21
        assert await store.verify() is None
        assert {envelope.user for envelope in await store.of_user("u-2", 0, 100)} == {"u-2"}
        await store.probe()
    async with open_store(tmp_path, keys, recorder=lambda: open_postgres(target, CHAIN)) as store:
        await store.open()
        assert store.head()[0] == accepted + 21
        assert await store.verify() is None


async def test_two_processes_on_one_chain_leave_no_gap(databases: Any, tmp_path: Path) -> None:
    target = databases()
    keys = Keys()
    async with (
        open_store(tmp_path, keys, recorder=lambda: open_postgres(target, CHAIN)) as one,
        open_store(tmp_path, keys, recorder=lambda: open_postgres(target, CHAIN)) as other,
    ):
        await asyncio.gather(*(store.save(Document(text="x"), user="u-1") for _ in range(25) for store in (one, other)))
        assert await one.verify() is None
        assert max(one.head()[0], other.head()[0]) == 50


def test_tenants_and_services_do_not_see_each_others_events(databases: Any) -> None:
    target = databases()
    chains = [Chain("lab", "acme"), Chain("lab", "globex"), Chain("agent-runtime", "acme")]
    recorders = [open_postgres(target, chain) for chain in chains]
    for count, recorder in enumerate(recorders, start=1):
        saves = [Save("u-1", [StoredEvent(uuid4(), 1, "lab.Document.Started", b"state")]) for _ in range(count)]
        recorder.insert_saves(saves, "2026-01-31T12:00:00.000000Z")
    assert [recorder.head().notification_id for recorder in recorders] == [1, 2, 3]
    assert tenants_with_store(target, "lab") == ["acme", "globex"]
    assert tenants_with_store(target, "agent-runtime") == ["acme"]
    for recorder in recorders:
        recorder.close()
