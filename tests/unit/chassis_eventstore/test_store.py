"""The store: what was saved is loaded again, synced, in a file that is its own."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from uuid import uuid4

import pytest
from unit.chassis_eventstore.documents import CHAIN, Document, Keys, open_store
from unit.chassis_eventstore.held_stores import whole

from remit_chassis.eventstore.recorders import SQLiteEventRecorder, open_sqlite
from remit_contracts.errors import Absent


async def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        document = Document(text="one")
        document.edit(text="two")
        assert await store.save(document, user="u-1") == 2
        document.edit(text="three")
        assert await store.save(document, user="u-1") == 3
        loaded = await store.load(Document, document.id)
        assert (loaded.text, loaded.version) == ("three", 3)
        await whole(store, 3)


async def test_a_save_without_new_events_is_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        document = Document(text="one")
        await store.save(document, user="u-1")
        assert await store.save(document, user="u-1") == 0
        await whole(store, 1)


async def test_an_aggregate_that_is_not_there_is_absent(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        with pytest.raises(Absent):
            await store.load(Document, uuid4())


async def test_what_was_saved_outlives_the_process_and_goes_on_behind(tmp_path: Path) -> None:
    keys = Keys()
    document = Document(text="one")
    async with open_store(tmp_path / "lab.sqlite", keys) as store:
        await store.save(document, user="u-1")
    async with open_store(tmp_path / "lab.sqlite", keys) as store:
        await store.open()
        assert store.head()[0] == 1
        loaded = await store.load(Document, document.id)
        loaded.edit(text="two")
        assert await store.save(loaded, user="u-1") == 2
        await whole(store, 2)


async def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "store" / "acme.sqlite"
    async with open_store(path) as store:
        await store.save(Document(text="one"), user="u-1")
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_file_appears_with_its_tables_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "acme.sqlite"
    seen: list[bool] = []
    create = SQLiteEventRecorder.create_table

    def interrupted(recorder: SQLiteEventRecorder) -> None:
        seen.append(path.exists())
        raise OSError("killed here")

    monkeypatch.setattr(SQLiteEventRecorder, "create_table", interrupted)
    with pytest.raises(OSError, match="killed here"):
        open_sqlite(path, CHAIN)
    assert seen == [False]
    assert not path.exists()
    monkeypatch.setattr(SQLiteEventRecorder, "create_table", create)
    open_sqlite(path, CHAIN).close()
    assert [file.name for file in tmp_path.iterdir()] == ["acme.sqlite"]
    with sqlite3.connect(path) as db:
        assert {"stored_events", "write_probe"} <= {
            row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        }
    db.close()


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    recorder = open_sqlite(tmp_path / "lab.sqlite", CHAIN)
    with recorder.datastore.get_connection(commit=True) as connection, connection.cursor() as c:
        assert c.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert c.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    recorder.close()


async def test_a_users_events_are_found_and_no_others(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        for user in ("u-1", "u-2", "u-1", "u-11"):
            await store.save(Document(text=user), user=user)
        found = await store.of_user("u-1", 0, 10)
        assert [envelope.notification_id for envelope in found] == [1, 3]
        assert [envelope.notification_id for envelope in await store.of_user("u-1", 1, 10)] == [3]
        assert [envelope.notification_id for envelope in await store.of_user("u-1", 0, 1)] == [1]


async def test_an_envelope_is_decoded_into_its_event(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        document = Document(text="one")
        (event,) = document.pending_events
        await store.save(document, user="u-1")
        (envelope,) = await store.read(1, 1)
        assert await store.decode(envelope) == event


async def test_a_range_reads_the_same_from_memory_and_from_disk(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        for number in range(8):
            await store.save(Document(text=str(number)), user="u-1")
        from_memory = [await store.read(first, 3) for first in range(1, 11)]
        store._tail.clear()
        assert [list(await store.read(first, 3)) for first in range(1, 11)] == from_memory
