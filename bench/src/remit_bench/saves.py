"""The event store with 64 saves in flight, against the library's own recorder, one save after the other.

Both make an aggregate with one event a save and wait for its fsync. Ours also encrypts, links and numbers.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from uuid import UUID

from eventsourcing.domain import Aggregate
from eventsourcing.persistence import DatetimeAsISO, JSONTranscoder, Mapper, UUIDAsHex
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore

from remit_bench.rows import Row, median
from remit_chassis.eventstore.chain import Chain
from remit_chassis.eventstore.recorders import open_sqlite
from remit_chassis.eventstore.store import EventStore

IN_FLIGHT = 64
PASSES = 5
GOAL_RATIO = 3.0
USER = "u-bench"
NOTE = "what happened, in about as many words as an event of a run has: " * 8


class Noted(Aggregate):
    """An aggregate of one event, about half a kilobyte."""

    TOPIC = "bench.Noted"

    class Created(Aggregate.Created):
        """It was noted."""

        TOPIC = "bench.Noted.Made"
        note: str

    def __init__(self, *, note: str) -> None:
        self.note = note


class OneKey:
    """A fixed key, always at hand."""

    def cached(self, tenant: str, user: str) -> bytes:
        """The key."""
        return bytes(32)

    async def key(self, tenant: str, user: str) -> bytes:
        """The key."""
        return bytes(32)

    def forget(self, tenant: str, user: str) -> None:
        """Nothing is kept."""


def measure(directory: Path, seconds: float) -> list[Row]:
    """Passes in turn, so that a slow moment of the machine meets both."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(PASSES):
        place = directory / f"saves-{number}"
        place.mkdir(parents=True)
        theirs.append(library_saves_a_second(place, seconds / 3))
        ours.append(asyncio.run(store_saves_a_second(place, seconds / 3)))
    ratio = median([mine / library for mine, library in zip(ours, theirs, strict=True)])
    return [
        Row(
            name="saves: event store, 64 in flight, encrypted, chained and fsynced; ratio to the library's recorder",
            value=median(ours),
            unit="saves/s",
            ratio=ratio,
            goal=">= 3",
            met=ratio >= GOAL_RATIO,
        ),
        Row(name="saves-library: its recorder, one by one, fsynced", value=median(theirs), unit="saves/s"),
    ]


async def store_saves_a_second(directory: Path, seconds: float) -> float:
    """`IN_FLIGHT` loops of saves."""
    chain = Chain("bench", "bench")
    saved = count()
    with ThreadPoolExecutor(1) as readers:
        store = EventStore(
            chain,
            lambda: open_sqlite(directory / "store.sqlite", chain),
            OneKey(),
            clock=lambda: datetime.now(UTC),
            readers=readers,
        )
        await store.open()
        until = time.perf_counter() + seconds

        async def loop() -> None:
            while time.perf_counter() < until:
                await store.save(Noted(note=NOTE), user=USER)
                next(saved)

        began = time.perf_counter()
        await asyncio.gather(*(loop() for _ in range(IN_FLIGHT)))
        took = time.perf_counter() - began
        await store.close()
    return next(saved) / took


def library_saves_a_second(directory: Path, seconds: float) -> float:
    """The library's SQLite recorder and mapper, as it makes them."""
    transcoder = JSONTranscoder()
    transcoder.register(UUIDAsHex())
    transcoder.register(DatetimeAsISO())
    mapper: Mapper[UUID] = Mapper(transcoder)
    datastore = SQLiteDatastore(str(directory / "library.sqlite"))
    recorder = SQLiteApplicationRecorder(datastore)
    recorder.create_table()
    saved, began = 0, time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        recorder.insert_events([mapper.to_stored_event(event) for event in Noted(note=NOTE).collect_events()])
        saved += 1
    datastore.close()
    return saved / (now - began)
