"""A small aggregate, keys at hand, and a store on a file: what the tests of the event store work with."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from eventsourcing.domain import Aggregate, event

from remit_chassis.eventstore.chain import Chain, Recorder
from remit_chassis.eventstore.recorders import open_sqlite
from remit_chassis.eventstore.store import EventStore
from remit_chassis.keyring import CachedUserKeys
from remit_contracts.errors import Absent

CHAIN = Chain("lab", "acme")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Document(Aggregate):
    """A text that is edited."""

    TOPIC = "lab.Document"

    class Event(Aggregate.Event):
        """Something that happened to it."""

    class Started(Event, Aggregate.Created):
        TOPIC = "lab.Document.Started"
        text: str

    Created = Started

    class Edited(Event):
        TOPIC = "lab.Document.Edited"
        text: str

    @event(Started)
    def __init__(self, text: str) -> None:
        self.text = text

    @event(Edited)
    def edit(self, text: str) -> None:
        self.text = text


class Keys(CachedUserKeys):
    """A random key for each user; users in `erased` have none."""

    def __init__(self) -> None:
        super().__init__(self._make)
        self.made: dict[tuple[str, str], bytes] = {}
        self.erased: set[str] = set()

    async def _make(self, tenant: str, user: str) -> bytes:
        if user in self.erased:
            raise Absent(f"the key of {user} was destroyed", code="absent.erased")
        return self.made.setdefault((tenant, user), os.urandom(32))


@asynccontextmanager
async def open_store(
    path: Path,
    keys: Keys | None = None,
    *,
    chain: Chain = CHAIN,
    recorder: Callable[[], Recorder] | None = None,
) -> AsyncIterator[EventStore]:
    """A store on the file at `path`, closed at the end."""
    with ThreadPoolExecutor(2) as readers:
        store = EventStore(
            chain,
            recorder or (lambda: open_sqlite(path, chain)),
            keys or Keys(),
            clock=lambda: NOON,
            readers=readers,
        )
        try:
            yield store
        finally:
            await store.close()
