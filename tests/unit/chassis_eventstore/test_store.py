"""The store: durable in groups, gapless whatever fails, in order, and honest about a disk that does not work."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import OperationalError, StoredEvent
from unit.chassis_eventstore.documents import CHAIN, Document, Keys, open_store

from remit_chassis.eventstore import store as store_module
from remit_chassis.eventstore.chain import Chain, Head, Outcome, Save, first_break
from remit_chassis.eventstore.recorders import SQLiteEventRecorder, open_sqlite
from remit_chassis.eventstore.store import EventStore
from remit_contracts.errors import Absent, Conflict, Overloaded, Tampered, Unavailable
from remit_contracts.events import GENESIS


class HeldRecorder:
    """A recorder whose next transactions wait until `go` is set, so that a test decides what waits together."""

    def __init__(self, recorder: SQLiteEventRecorder) -> None:
        self._recorder = recorder
        self.go = threading.Event()
        self.go.set()
        self.batches: list[int] = []
        self.fault: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recorder, name)

    def insert_saves(self, saves: Sequence[Save], recorded_at: str) -> Sequence[Outcome]:
        self.batches.append(len(saves))
        assert self.go.wait(10)
        if self.fault:
            raise self.fault
        return self._recorder.insert_saves(saves, recorded_at)

    def probe(self) -> None:
        if self.fault:
            raise self.fault
        self._recorder.probe()


def held(path: Path) -> tuple[list[HeldRecorder], Callable[[], Any]]:
    """The recorders that a store has opened, and how it opens them."""
    opened: list[HeldRecorder] = []

    def open_held() -> HeldRecorder:
        opened.append(HeldRecorder(open_sqlite(path, CHAIN)))
        return opened[-1]

    return opened, open_held


async def until(condition: Callable[[], bool]) -> None:
    """Let the writer thread come to where the test needs it."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def whole(store: EventStore, count: int) -> None:
    """The log has `count` events, numbered 1 to `count`, and nothing in it is altered."""
    envelopes = await store.read(1, count + 10)
    assert [envelope.notification_id for envelope in envelopes] == list(range(1, count + 1))
    assert first_break(CHAIN, Head(), envelopes) is None
    assert await store.verify() is None
    assert store.head() == (count, envelopes[-1].hash if envelopes else GENESIS)


# -- saving and loading -----------------------------------------------------------------------------------------------


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


# -- groups and conflicts ---------------------------------------------------------------------------------------------


async def test_saves_that_wait_share_one_transaction(tmp_path: Path) -> None:
    recorders, open_held = held(tmp_path / "lab.sqlite")
    async with open_store(tmp_path, recorder=open_held) as store:
        await store.open()
        recorders[0].go.clear()
        saves = [store.save_later(Document(text=str(number)), user=f"u-{number}") for number in range(20)]
        await until(lambda: bool(recorders[0].batches))
        recorders[0].go.set()
        assert sorted(await asyncio.gather(*saves)) == list(range(1, 21))
        assert len(recorders[0].batches) <= 3
        await whole(store, 20)


async def test_a_conflict_amid_a_group_fails_alone_and_leaves_no_gap(tmp_path: Path) -> None:
    recorders, open_held = held(tmp_path / "lab.sqlite")
    keys = Keys()
    async with open_store(tmp_path, keys, recorder=open_held) as store:
        document = Document(text="one")
        await store.save(document, user="u-1")
        mine, theirs = await store.load(Document, document.id), await store.load(Document, document.id)
        mine.edit(text="mine")
        theirs.edit(text="theirs")
        recorders[0].go.clear()
        blocker = store.save_later(Document(text="holds the writer"), user="u-1")
        await until(lambda: len(recorders[0].batches) == 2)
        group = [
            store.save_later(Document(text="before"), user="u-1"),
            store.save_later(mine, user="u-1"),
            store.save_later(theirs, user="u-1"),
            store.save_later(Document(text="after"), user="u-1"),
        ]
        recorders[0].go.set()
        results = await asyncio.gather(blocker, *group, return_exceptions=True)
        assert recorders[0].batches[-1] == 4
        assert results[:3] == [2, 3, 4]
        assert isinstance(results[3], Conflict)
        assert results[4] == 5
        assert (await store.load(Document, document.id)).text == "mine"
        await whole(store, 5)


async def test_what_follows_from_a_refused_save_is_refused_too(tmp_path: Path) -> None:
    """A later version must not be stored behind somebody else's: it was decided on another history."""
    recorders, open_held = held(tmp_path / "lab.sqlite")
    async with open_store(tmp_path, recorder=open_held) as store:
        document = Document(text="one")
        await store.save(document, user="u-1")
        winner, stale = await store.load(Document, document.id), await store.load(Document, document.id)
        winner.edit(text="winner")
        await store.save(winner, user="u-1")
        recorders[0].go.clear()
        saves = []
        for number in range(3):  # the first is taken alone, the others wait together
            stale.edit(text=f"stale {number}")
            saves.append(store.save_later(stale, user="u-1"))
            await until(lambda: len(recorders[0].batches) == 3)
        recorders[0].go.set()
        results = await asyncio.gather(*saves, return_exceptions=True)
        assert [type(result) for result in results] == [Conflict] * 3
        assert (await store.load(Document, document.id)).text == "winner"
        await whole(store, 2)


async def test_followers_within_one_transaction_are_refused_too(tmp_path: Path) -> None:
    recorders, open_held = held(tmp_path / "lab.sqlite")
    async with open_store(tmp_path, recorder=open_held) as store:
        document = Document(text="one")
        await store.save(document, user="u-1")
        winner, stale = await store.load(Document, document.id), await store.load(Document, document.id)
        winner.edit(text="winner")
        await store.save(winner, user="u-1")
        recorders[0].go.clear()
        blocker = store.save_later(Document(text="holds the writer"), user="u-1")
        await until(lambda: len(recorders[0].batches) == 3)
        stale.edit(text="taken")
        first = store.save_later(stale, user="u-1")
        stale.edit(text="would fit behind")
        second = store.save_later(stale, user="u-1")
        recorders[0].go.set()
        results = await asyncio.gather(blocker, first, second, return_exceptions=True)
        assert recorders[0].batches[-1] == 2
        assert [type(result) for result in results] == [int, Conflict, Conflict]
        await whole(store, 3)


async def test_hundreds_of_racing_saves_leave_no_gap_and_lose_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        documents = [Document(text="0") for _ in range(4)]
        await asyncio.gather(*(store.save(document, user="u-1") for document in documents))
        accepted = [0] * 4

        async def edit(index: int) -> None:
            for _ in range(20):
                document = await store.load(Document, documents[index].id)
                document.edit(text=str(int(document.text) + 1))
                try:
                    await store.save(document, user=f"u-{index}")
                except Conflict:
                    continue
                accepted[index] += 1

        await asyncio.gather(*(edit(number % 4) for number in range(16)))
        for index, document in enumerate(documents):
            assert (await store.load(Document, document.id)).text == str(accepted[index])
        assert 0 < sum(accepted) < 16 * 20
        await whole(store, 4 + sum(accepted))


async def test_two_processes_on_one_file_leave_no_gap(tmp_path: Path) -> None:
    keys = Keys()
    async with (
        open_store(tmp_path / "lab.sqlite", keys) as one,
        open_store(tmp_path / "lab.sqlite", keys) as other,
    ):
        for store in (one, other, other, one, one, other):
            await store.save(Document(text="x"), user="u-1")
        one._tail.clear()
        assert await one.verify() is None
        assert [envelope.notification_id for envelope in await one.read(1, 10)] == [1, 2, 3, 4, 5, 6]


# -- order and keys ---------------------------------------------------------------------------------------------------


class SlowKeys(Keys):
    """Keys come when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.come = asyncio.Event()

    async def _make(self, tenant: str, user: str) -> bytes:
        await self.come.wait()
        return await super()._make(tenant, user)


async def test_saves_of_one_aggregate_keep_their_order_while_the_key_is_fetched(tmp_path: Path) -> None:
    keys = SlowKeys()
    keys._kept["acme", "u-2"] = (bytes(32), float("inf"))  # at hand, and still not to be stored before u-1's
    async with open_store(tmp_path / "lab.sqlite", keys) as store:
        document = Document(text="0")
        saves = [store.save_later(document, user="u-1")]
        for number in range(1, 6):
            document.edit(text=str(number))
            saves.append(store.save_later(document, user="u-1" if number < 4 else "u-2"))
            await asyncio.sleep(0)
        keys.come.set()
        assert await asyncio.gather(*saves) == [1, 2, 3, 4, 5, 6]
        document.edit(text="6")
        assert await store.save(document, user="u-1") == 7
        assert (await store.load(Document, document.id)).text == "6"
        assert [envelope.originator_version for envelope in await store.read(1, 10)] == [1, 2, 3, 4, 5, 6, 7]


async def test_a_user_whose_key_is_slow_holds_nobody_up(tmp_path: Path) -> None:
    keys = SlowKeys()
    keys._kept["acme", "u-2"] = (bytes(32), float("inf"))
    async with open_store(tmp_path / "lab.sqlite", keys) as store:
        slow = store.save_later(Document(text="slow"), user="u-1")
        assert await store.save(Document(text="quick"), user="u-2") == 1
        assert not slow.done()
        keys.come.set()
        assert await slow == 2


async def test_nothing_is_saved_for_a_user_who_was_erased(tmp_path: Path) -> None:
    keys = Keys()
    async with open_store(tmp_path / "lab.sqlite", keys) as store:
        document = Document(text="one")
        await store.save(document, user="u-1")
        keys.erased.add("u-1")
        keys.forget("acme", "u-1")
        document.edit(text="two")
        with pytest.raises(Absent) as refusal:
            await store.save(document, user="u-1")
        assert refusal.value.refusal_code == "absent.erased"
        with pytest.raises(Absent):
            await store.load(Document, document.id)
        assert await store.save(Document(text="other"), user="u-2") == 2
        await whole(store, 2)  # the record stays, and still verifies


async def test_an_event_that_cannot_be_encoded_fails_its_own_save(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        with pytest.raises(TypeError):
            await store.save(Document(text={1, 2}), user="u-1")  # type: ignore[arg-type]
        assert await store.save(Document(text="one"), user="u-1") == 1


# -- the disk, the loop, the end --------------------------------------------------------------------------------------


async def test_a_failing_database_is_unavailable_until_a_probe_succeeds(tmp_path: Path) -> None:
    recorders, open_held = held(tmp_path / "lab.sqlite")
    async with open_store(tmp_path, recorder=open_held) as store:
        await store.save(Document(text="one"), user="u-1")
        recorders[0].fault = OperationalError("disk I/O error")
        with pytest.raises(Unavailable):
            await store.save(Document(text="lost"), user="u-1")
        assert store.fault == "disk I/O error"
        with pytest.raises(Unavailable):
            await store.probe()
        recorders[0].fault = None
        await store.probe()
        assert store.fault is None
        assert await store.save(Document(text="two"), user="u-1") == 2
        await whole(store, 2)


@contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """No file may grow beyond `limit_bytes`: writes fail for real, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_refuses_saves_and_loses_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        saved = 0
        refused = 0
        with full_disk(256 * 1024):
            while not refused:
                try:
                    await store.save(Document(text="x" * 20_000), user="u-1")
                    saved += 1
                except Unavailable:
                    refused += 1
            with pytest.raises(Unavailable):
                await store.save(Document(text="x" * 20_000), user="u-1")
        assert saved > 0
        assert await store.save(Document(text="y"), user="u-1") == saved + 1
        await whole(store, saved + 1)


async def test_the_loop_runs_and_reads_while_a_commit_takes_its_time(tmp_path: Path) -> None:
    recorders, open_held = held(tmp_path / "lab.sqlite")
    async with open_store(tmp_path, recorder=open_held) as store:
        await store.save(Document(text="one"), user="u-1")
        recorders[0].go.clear()
        waiting = store.save_later(Document(text="two"), user="u-1")
        await until(lambda: len(recorders[0].batches) == 2)
        assert len(await store.of_user("u-1", 0, 10)) == 1
        assert not waiting.done()
        recorders[0].go.set()
        assert await waiting == 2


async def test_closing_stores_what_waits_and_then_refuses(tmp_path: Path) -> None:
    keys = SlowKeys()
    async with open_store(tmp_path / "lab.sqlite", keys) as store:
        saves = [store.save_later(Document(text=str(number)), user=f"u-{number % 3}") for number in range(50)]
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
        keys.come.set()
        await closing
        assert sorted(await asyncio.gather(*saves)) == list(range(1, 51))
        with pytest.raises(Unavailable):
            await store.save(Document(text="late"), user="u-1")


async def test_too_many_waiting_saves_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_MOST_WAITING", 3)
    recorders, open_held = held(tmp_path / "lab.sqlite")
    async with open_store(tmp_path, recorder=open_held) as store:
        await store.open()
        recorders[0].go.clear()
        saves = [store.save_later(Document(text="x"), user="u-1") for _ in range(4)]
        with pytest.raises(Overloaded):
            await saves[3]
        recorders[0].go.set()
        assert await asyncio.gather(*saves[:3]) == [1, 2, 3]
        assert await store.save(Document(text="x"), user="u-1") == 4


async def test_whoever_watches_learns_of_growth(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        grown = store.watch()
        assert not grown.is_set()
        await store.save(Document(text="one"), user="u-1")
        assert grown.is_set()


# -- tampering --------------------------------------------------------------------------------------------------------


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
