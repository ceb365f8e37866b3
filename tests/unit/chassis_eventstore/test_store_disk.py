"""A store beside its disk and its loop: what is refused while either is slow or full, and at the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from eventsourcing.persistence import OperationalError
from full_disk import full_disk
from unit.chassis_eventstore.documents import Document, open_store
from unit.chassis_eventstore.held_stores import SlowKeys, held, until, whole

from remit_chassis.eventstore import store as store_module
from remit_contracts.errors import Overloaded, Unavailable


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
