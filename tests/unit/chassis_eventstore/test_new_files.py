"""A store's file is made once, whole, on any file system, and never over another."""

from __future__ import annotations

import errno
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from unit.chassis_eventstore.documents import CHAIN, Document, Keys, open_store

from remit_chassis.eventstore.recorders import SQLiteEventRecorder, open_sqlite


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.ENOTSUP])
async def test_a_file_is_made_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", refuse)
    path, keys = tmp_path / "store" / "lab.sqlite", Keys()
    async with open_store(path, keys) as store:
        assert await store.save(Document(text="one"), user="u-1") == 1
    async with open_store(path, keys) as store:
        assert await store.save(Document(text="two"), user="u-1") == 2
    assert [file.name for file in path.parent.iterdir()] == ["lab.sqlite"]


def test_a_file_that_somebody_else_was_quicker_to_make_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes find no file. The slower one has the lock when the quicker one has made and let go of its own."""
    path = tmp_path / "lab.sqlite"
    slow, go = Event(), Event()
    flock = fcntl.flock

    def wait_first(descriptor: int, operation: int) -> None:
        if not slow.is_set():
            slow.set()
            assert go.wait(10)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", wait_first)
    with ThreadPoolExecutor(1) as slower:
        opened = slower.submit(open_sqlite, path, CHAIN)
        assert slow.wait(10)
        open_sqlite(path, CHAIN).close()
        made = path.stat().st_ino
        go.set()
        opened.result(10).close()
    assert path.stat().st_ino == made


def test_whoever_makes_files_of_one_directory_does_so_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lab.sqlite"
    making, go = Event(), Event()
    made: list[int] = []
    create_table = SQLiteEventRecorder.create_table

    def slowly(recorder: SQLiteEventRecorder) -> None:
        made.append(1)
        making.set()
        assert go.wait(10)
        create_table(recorder)

    monkeypatch.setattr(SQLiteEventRecorder, "create_table", slowly)
    with ThreadPoolExecutor(2) as both:
        first = both.submit(open_sqlite, path, CHAIN)
        assert making.wait(10)
        second = both.submit(open_sqlite, path, CHAIN)
        assert not second.done()
        go.set()
        first.result(10).close()
        second.result(10).close()
    assert made == [1]
