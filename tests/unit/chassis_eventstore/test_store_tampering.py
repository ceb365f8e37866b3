"""What a store says of a file that somebody has altered, emptied or taken from another service."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from uuid import uuid4

import pytest
from eventsourcing.persistence import OperationalError, StoredEvent
from unit.chassis_eventstore.documents import CHAIN, Document, open_store

from remit_chassis.eventstore.chain import Chain, Head, Save, first_break
from remit_chassis.eventstore.recorders import open_sqlite
from remit_contracts.errors import Tampered

TAMPERINGS = {
    "a byte of a state": "UPDATE stored_events SET state = CAST(X'00' || substr(state, 2) AS BLOB) WHERE rowid = 3",
    "a user": "UPDATE stored_events SET user_id = 'u-2' WHERE rowid = 3",
    "a tenant": "UPDATE stored_events SET tenant = 'globex' WHERE rowid = 3",
    "an instant": "UPDATE stored_events SET recorded_at = '2026-01-31T12:00:00.000001Z' WHERE rowid = 3",
    "a topic": "UPDATE stored_events SET topic = 'lab.Document.Edited' WHERE rowid = 3",
    "a state's type": "UPDATE stored_events SET state = 7 WHERE rowid = 3",
    "a hash": "UPDATE stored_events SET hash = prev_hash WHERE rowid = 3",
    "a row taken out": "DELETE FROM stored_events WHERE rowid = 3",
    "the first row taken out": "DELETE FROM stored_events WHERE rowid = 1",
}


async def six_events(path: Path) -> None:
    async with open_store(path) as store:
        for number in range(6):
            await store.save(Document(text=str(number)), user="u-1")


def alter(path: Path, statement: str) -> None:
    database = sqlite3.connect(path)
    with database:
        assert database.execute(statement).rowcount == 1
    database.close()


@pytest.mark.parametrize("what", TAMPERINGS)
async def test_tampering_is_named_by_its_number(tmp_path: Path, what: str) -> None:
    path = tmp_path / "lab.sqlite"
    await six_events(path)
    alter(path, TAMPERINGS[what])
    async with open_store(path) as store:
        assert await store.verify() == (1 if "first" in what else 3)


async def test_a_chain_that_was_tampered_with_is_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "lab.sqlite"
    await six_events(path)
    alter(path, TAMPERINGS["a user"])
    async with open_store(path) as store:
        with pytest.raises(Tampered):
            await store.open()
        with pytest.raises(Tampered):
            await store.save(Document(text="more"), user="u-1")
    recorder = open_sqlite(path, CHAIN, read_only=True)
    assert recorder.head().notification_id == 6
    recorder.close()


async def test_a_log_cut_off_behind_our_back_is_noticed(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        for number in range(3):
            await store.save(Document(text=str(number)), user="u-1")
        alter(tmp_path / "lab.sqlite", "DELETE FROM stored_events WHERE rowid = 3")
        assert await store.verify() == 3


async def test_a_file_that_is_no_database_any_more_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "lab.sqlite"
    await six_events(path)
    path.write_bytes(b"no database" * 1000)
    async with open_store(path) as store:
        with pytest.raises(Tampered):
            await store.save(Document(text="more"), user="u-1")
        with pytest.raises(Tampered):
            await store.verify()


async def test_a_file_without_its_tables_is_damaged_and_not_filled_again(tmp_path: Path) -> None:
    path = tmp_path / "lab.sqlite"
    await six_events(path)
    path.write_bytes(b"")
    async with open_store(path) as store:
        with pytest.raises(Tampered):
            await store.save(Document(text="more"), user="u-1")
    assert path.stat().st_size == 0 or b"stored_events" not in path.read_bytes()


async def test_another_services_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lab.sqlite"
    await six_events(path)
    async with open_store(path, chain=Chain("other", "acme")) as store:
        with pytest.raises(Tampered):
            await store.open()


async def test_a_stopped_homes_file_is_read_without_being_changed(tmp_path: Path) -> None:
    path = tmp_path / "lab.sqlite"
    await six_events(path)
    before = path.read_bytes()
    recorder = open_sqlite(path, CHAIN, read_only=True)
    assert first_break(CHAIN, Head(), recorder.select_envelopes(1, 100)) is None
    with pytest.raises(OperationalError):
        recorder.insert_saves([Save("u-1", [StoredEvent(uuid4(), 1, "lab.Document.Edited", b"")])], "now")
    recorder.close()
    assert path.read_bytes() == before
