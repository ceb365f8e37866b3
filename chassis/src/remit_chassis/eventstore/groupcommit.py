"""Group commit: a thread that stores whatever saves wait at the same moment in one transaction, with one fsync.

It opens the database on first use, and checks the newest events of its chain before anything is added to them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from uuid import UUID

from eventsourcing.domain import Aggregate, CanMutateAggregate
from eventsourcing.persistence import IntegrityError, PersistenceError

from remit_chassis.eventstore.chain import Chain, Head, Recorder, Save, first_break, instant
from remit_chassis.eventstore.recorders import is_damaged
from remit_contracts.errors import Conflict, Tampered, Unavailable
from remit_contracts.events import Envelope

_BATCH = 256  # saves in a transaction; more gained nothing when measured
_CHECKED_AT_OPEN = 256  # events; `EventStore.verify` checks all


class Line:
    """An aggregate object with saves under way. `broken` once one of them failed; `queue` while they wait for a key."""

    __slots__ = ("aggregate", "broken", "queue", "saves")

    def __init__(self, aggregate: Aggregate) -> None:
        self.aggregate = aggregate  # held, so that its id() is not given to another object meanwhile
        self.broken = False
        self.queue: deque[Write] | None = None
        self.saves = 0


class Write:
    """A save on its way. `sealed` is set when the user's key was at hand."""

    __slots__ = ("events", "future", "line", "sealed", "user")

    def __init__(self, user: str, events: Sequence[CanMutateAggregate[UUID]], line: Line, future: asyncio.Future[int]):
        self.user = user
        self.events = events
        self.line = line
        self.future = future
        self.sealed = Save(user, ())


Settled = tuple[Write, Sequence[Envelope] | Exception]
"""A write and its envelopes as stored, or why it failed."""


class GroupCommit:
    """The writing side of one chain. `settle` is called on the loop with what became of each write, in chain order.

    `fault` says why the last transaction failed, until one succeeds.
    """

    def __init__(
        self,
        chain: Chain,
        open_recorder: Callable[[], Recorder],
        *,
        clock: Callable[[], datetime],
        settle: Callable[[Sequence[Settled]], None],
    ) -> None:
        self.fault: str | None = None
        self.head_at_open = Head()
        self._chain = chain
        self._open_recorder = open_recorder
        self._clock = clock
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        self._recorder: Recorder | None = None
        self._opening = Lock()
        self._queue: SimpleQueue[Write | None] = SimpleQueue()
        self._thread = Thread(target=self._write_batches, name=f"events {chain}", daemon=True)
        self._thread.start()

    def put(self, write: Write) -> None:
        """Queue a sealed write."""
        self._queue.put(write)

    def recorder(self) -> Recorder:
        """The recorder, opened and its newest events checked once; blocks. Raises Tampered, or a PersistenceError."""
        with self._opening:
            if self._recorder is None:
                recorder = self._open_recorder()
                try:
                    head = recorder.head()
                    first = max(1, head.notification_id - _CHECKED_AT_OPEN + 1)
                    newest = recorder.select_envelopes(first, _CHECKED_AT_OPEN)
                except PersistenceError as fault:
                    recorder.close()
                    if is_damaged(fault):
                        raise Tampered(f"the file of {self._chain} is no event store any more: {fault}") from fault
                    raise
                before = Head(first - 1, newest[0].prev_hash) if newest and first > 1 else Head()
                broken = first_break(self._chain, before, newest)
                if broken is not None:
                    recorder.close()
                    raise Tampered(f"event {broken} of {self._chain} is not what was stored")
                self.head_at_open, self._recorder = head, recorder
            return self._recorder

    def refusal(self, fault: Exception) -> Exception:
        """The Unavailable for a failing database, remembered in `fault`; any other exception as it is."""
        if not isinstance(fault, PersistenceError | OSError):
            return fault
        self.fault = str(fault)[:200]
        return Unavailable(f"the event store of {self._chain} cannot be written: {self.fault}")

    def end(self) -> None:
        """Store what waits, then close the database; blocks."""
        self._queue.put(None)
        self._thread.join()
        if self._recorder:
            self._recorder.close()

    def _write_batches(self) -> None:
        ending = False
        while not ending:
            batch = [self._queue.get()]
            try:
                while len(batch) < _BATCH:
                    batch.append(self._queue.get_nowait())
            except Empty:
                pass
            ending = batch[-1] is None
            if writes := [write for write in batch if write is not None]:
                outcomes = self._write(writes)
                if self._loop.is_closed():
                    return
                self._loop.call_soon_threadsafe(self._settle, outcomes)

    def _write(self, writes: list[Write]) -> list[Settled]:
        """What became of each write. Never raises: an unforeseen fault is every write's outcome."""
        outcomes: list[Settled] = [(write, _stale()) for write in writes if write.line.broken]
        writes = [write for write in writes if not write.line.broken]
        if not writes:
            return outcomes
        try:
            recorder = self.recorder()
            if self.fault:
                recorder.probe()
            results = recorder.insert_saves([write.sealed for write in writes], instant(self._clock()))
            self.fault = None
        except Exception as fault:
            refused = self.refusal(fault)
            outcomes += [(write, refused) for write in writes]
        else:
            for write, result in zip(writes, results, strict=True):
                outcomes.append((write, _taken(write) if isinstance(result, IntegrityError) else result))
        for write, outcome in outcomes:
            if isinstance(outcome, Exception):
                write.line.broken = True
        return outcomes


def _stale() -> Conflict:
    return Conflict("an earlier save of this aggregate failed: load it again")


def _taken(write: Write) -> Conflict:
    first = write.sealed.events[0]
    aggregate = f"{first.topic.rpartition('.')[0]} {first.originator_id}"
    return Conflict(f"version {first.originator_version} of {aggregate} is taken: load it again")
