"""Stores whose next transactions wait until a test lets them go, and what is true of every whole log."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unit.chassis_eventstore.documents import CHAIN, Keys

from remit_chassis.eventstore.chain import Head, Outcome, Save, first_break
from remit_chassis.eventstore.recorders import SQLiteEventRecorder, open_sqlite
from remit_chassis.eventstore.store import EventStore
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


class SlowKeys(Keys):
    """Keys come when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.come = asyncio.Event()

    async def _make(self, tenant: str, user: str) -> bytes:
        await self.come.wait()
        return await super()._make(tenant, user)


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
