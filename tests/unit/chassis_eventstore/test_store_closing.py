"""Closing a store while it is read: the database is closed when the last thread has let go of it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from unit.chassis_eventstore.documents import CHAIN, Document, Keys, open_store

from remit_chassis.eventstore.recorders import SQLiteEventRecorder, open_sqlite
from remit_contracts.errors import Unavailable


class SlowToRead:
    """A recorder whose reads of a user's events wait for `go`; `told` is what was done to it, in order."""

    def __init__(self, recorder: SQLiteEventRecorder) -> None:
        self._recorder = recorder
        self.begun, self.go = threading.Event(), threading.Event()
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recorder, name)

    def select_envelopes_of_user(self, *arguments: Any) -> Any:
        self.begun.set()
        assert self.go.wait(10)
        found = self._recorder.select_envelopes_of_user(*arguments)
        self.told.append("read")
        return found

    def close(self) -> None:
        self.told.append("closed")
        self._recorder.close()


async def test_a_read_that_nobody_waits_for_any_more_ends_before_the_database_is_closed(tmp_path: Path) -> None:
    recorder = SlowToRead(open_sqlite(tmp_path / "lab.sqlite", CHAIN))
    async with open_store(tmp_path, Keys(), recorder=lambda: recorder) as store:
        await store.save(Document(text="one"), user="u-1")
        reading = asyncio.ensure_future(store.of_user("u-1", 0, 10))
        assert await asyncio.to_thread(recorder.begun.wait, 10)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        closing = asyncio.ensure_future(store.close())
        while not store._closing:
            await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await store.of_user("u-1", 0, 10)
        asyncio.get_running_loop().call_later(0.05, recorder.go.set)
        await closing
    assert recorder.told == ["read", "closed"]
