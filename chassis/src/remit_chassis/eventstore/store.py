"""One chain of events as a service uses it: asynchronous, with group commit.

Saves that wait at the same moment share one transaction and one fsync, in a thread of the store's own; each resolves
after the commit. A conflict fails its own save only, and those that follow from it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from eventsourcing.domain import Aggregate, CanMutateAggregate
from eventsourcing.persistence import PersistenceError

from remit_chassis.eventstore.chain import Chain, Head, Recorder, Save, first_break
from remit_chassis.eventstore.groupcommit import GroupCommit, Line, Settled, Write
from remit_chassis.eventstore.mapper import EncryptingMapper
from remit_chassis.eventstore.witness import PATIENCE_SECONDS, Bar, Contradicted, NotCompared
from remit_contracts.errors import Absent, Overloaded, Tampered, Unavailable
from remit_contracts.events import Envelope

if TYPE_CHECKING:
    from remit_chassis.keyring import UserKeys

A = TypeVar("A", bound=Aggregate)
R = TypeVar("R")

_TAIL = 1024  # newest events kept in memory for the relay
_MOST_WAITING = 10_000  # saves


class EventStore:
    """The events of one service in one tenant. Made on a running loop, and used from that loop only.

    Opens on first use. A tampered chain is refused (Tampered) by everything but `verify`; a database that fails is
    Unavailable, and stays so until a write to it succeeds. A store with a relay takes no save before the relay has
    compared its log with the stream, and none while the two contradict each other.
    """

    def __init__(
        self,
        chain: Chain,
        open_recorder: Callable[[], Recorder],
        keys: UserKeys,
        *,
        clock: Callable[[], datetime],
        readers: Executor,
    ) -> None:
        self.chain = chain
        self._open_recorder = open_recorder
        self._keys = keys
        self._readers = readers
        self._mapper = EncryptingMapper(chain.tenant)
        self._loop = asyncio.get_running_loop()
        self._commits = GroupCommit(chain, open_recorder, clock=clock, settle=self._settle)
        self._last: Head | None = None
        self._tail: deque[Envelope] = deque(maxlen=_TAIL)
        self._lines: dict[int, Line] = {}
        self._without_key: dict[str, deque[Write]] = {}
        self._fetching: set[asyncio.Task[None]] = set()
        self._reads: set[asyncio.Future[Any]] = set()
        self._growth: list[asyncio.Event] = []
        self._waiting = 0
        self._closing = False
        self._bar: Bar | None = None  # None: saves are taken, which is all that a save asks
        self._damage = ""
        self._compared = asyncio.Event()
        self._compared.set()

    # -- saving ----------------------------------------------------------------------------------------------------

    async def save(self, aggregate: Aggregate, *, user: str) -> int:
        """Store the aggregate's new events under `user`; returns the number of the last one (0 when there is none).

        Raises Conflict when somebody else stored that version first: load it again. Raises Absent("absent.erased") when
        the user's key is destroyed, Unavailable when the database fails, Overloaded when too many saves wait,
        NotCompared or Contradicted when the stream has not confirmed the log. After any of them the object is stale.
        After Unavailable other than NotCompared, and after a cancellation, its events may have been stored.
        """
        return await self.save_later(aggregate, user=user)

    def save_later(self, aggregate: Aggregate, *, user: str) -> asyncio.Future[int]:
        """`save` without waiting. Saves of one aggregate object are stored in the order of the calls."""
        future: asyncio.Future[int] = self._loop.create_future()
        if self._closing:
            future.set_exception(Unavailable(f"the event store of {self.chain} is closing"))
            return future
        if self._bar and self._bar.contradiction:
            future.set_exception(Contradicted(self.chain, self._bar.contradiction))
            return future
        if self._waiting >= _MOST_WAITING:
            future.set_exception(Overloaded(f"{self._waiting} saves wait in {self.chain}", retry_after_seconds=1.0))
            return future
        events = aggregate.collect_events()
        if not events:
            future.set_result(0)
            return future
        line = self._lines.get(id(aggregate))
        if line is None:
            line = self._lines[id(aggregate)] = Line(aggregate)
        line.saves += 1
        self._waiting += 1
        write = Write(user, events, line, future)
        queue = self._without_key.get(user) if line.queue is None else line.queue
        if queue is None:
            key = self._keys.cached(self.chain.tenant, user)
            if key is not None:
                self._seal_and_queue(write, key)
                return future
            queue = self._without_key[user] = deque()
            task = self._loop.create_task(self._fetch_key(user, queue))
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)
        line.queue = queue
        queue.append(write)
        return future

    async def _fetch_key(self, user: str, queue: deque[Write]) -> None:
        """Seal what waits for this user's key, in order; also what was called meanwhile."""
        while queue:
            write = queue[0]
            try:
                key = await self._keys.key(self.chain.tenant, write.user)
            except Exception as fault:
                queue.popleft()
                self._refuse(write, fault)
            else:
                queue.popleft()
                self._seal_and_queue(write, key)
        del self._without_key[user]
        for line in self._lines.values():
            if line.queue is queue:
                line.queue = None

    def _seal_and_queue(self, write: Write, key: bytes) -> None:
        try:
            sealed = [self._mapper.seal(event, write.user, key) for event in write.events]
        except Exception as fault:
            self._refuse(write, fault)
            return
        write.sealed = Save(write.user, sealed, id(write.line.aggregate))
        (self._bar or self._commits).put(write)

    def _refuse(self, write: Write, why: Exception) -> None:
        write.line.broken = True
        self._settle([(write, why)])

    def _settle(self, outcomes: Sequence[Settled]) -> None:
        grown = False
        for write, outcome in outcomes:
            self._waiting -= 1
            line = write.line
            line.saves -= 1
            if not line.saves:
                del self._lines[id(line.aggregate)]
            if isinstance(outcome, Exception):
                if not write.future.done():
                    write.future.set_exception(outcome)
                continue
            grown = True
            if self._tail and outcome[0].notification_id != self._tail[-1].notification_id + 1:
                self._tail.clear()  # another process writes this chain too
            self._tail.extend(outcome)
            self._last = Head(outcome[-1].notification_id, outcome[-1].hash)
            if not write.future.done():
                write.future.set_result(self._last.notification_id)
        if grown:
            for event in self._growth:
                event.set()

    # -- reading ---------------------------------------------------------------------------------------------------

    async def load(self, aggregate_class: type[A], aggregate_id: UUID) -> A:
        """The aggregate from its events; raises Absent when there is none of that class, or its user was erased."""
        envelopes = await self._read(lambda recorder: recorder.select_envelopes_of_aggregate(aggregate_id))
        aggregate: Any = None
        for envelope in envelopes:
            aggregate = (await self.decode(envelope)).mutate(aggregate)
        if not isinstance(aggregate, aggregate_class):
            raise Absent(f"there is no {aggregate_class.__name__.lower()} {aggregate_id}")
        return aggregate

    async def read(self, first: int, limit: int) -> Sequence[Envelope]:
        """Up to `limit` envelopes from number `first` on, in order."""
        tail = self._tail
        if tail and first >= tail[0].notification_id:
            skip = first - tail[0].notification_id
            return list(islice(tail, skip, skip + limit))
        return await self._read(lambda recorder: recorder.select_envelopes(first, limit))

    async def of_user(self, user: str, after: int, limit: int) -> Sequence[Envelope]:
        """Up to `limit` of one user's envelopes numbered above `after`, in order."""
        return await self._read(lambda recorder: recorder.select_envelopes_of_user(user, after, limit))

    async def decode(self, envelope: Envelope) -> CanMutateAggregate[UUID]:
        """The event in an envelope, upcast; raises Tampered, or Absent("absent.erased")."""
        key = self._keys.cached(self.chain.tenant, envelope.user)
        if key is None:
            key = await self._keys.key(self.chain.tenant, envelope.user)
        return self._mapper.open(envelope, key)

    def head(self) -> Head:
        """Number and hash of the last event whose save has resolved; (0, GENESIS) while `open` has not been awaited."""
        return self._last or self._commits.head_at_open

    async def verify(self) -> int | None:
        """Check every event from the first: the number of the first that is altered or missing, or None.

        Raises Tampered when the database is so damaged that it cannot be read.
        A chain cut off at its end shows only against what this process saved, the stream or the ledger.
        """
        expected = self.head().notification_id

        def check() -> int | None:
            # A recorder of its own: an altered chain must not be opened for use, and may be looked at all the same.
            try:
                recorder = self._open_recorder()
                try:
                    return _verify(self.chain, recorder, expected)
                finally:
                    recorder.close()
            except PersistenceError as fault:
                raise Tampered(f"the log of {self.chain} cannot be read: {fault}") from fault

        return await self._loop.run_in_executor(self._readers, check)

    async def open(self) -> None:
        """Open now instead of on first use; raises Tampered or Unavailable."""
        await self._read(lambda recorder: None)

    async def probe(self) -> None:
        """Write and sync something; raises Unavailable when that fails, and ends an earlier fault when it does not.

        Raises Contradicted, or NotCompared, while the stream does not confirm the log: being able to write is not
        enough then.
        """
        await self.confirmed()
        await self._read(lambda recorder: recorder.probe())
        self._commits.fault = None

    async def _read(self, query: Callable[[Recorder], R]) -> R:
        def run() -> R:
            return query(self._commits.recorder())

        if self._closing:
            raise Unavailable(f"the event store of {self.chain} is closing")
        reading = self._loop.run_in_executor(self._readers, run)
        self._reads.add(reading)
        reading.add_done_callback(self._reads.discard)
        try:
            return await asyncio.shield(reading)  # whoever is cancelled here leaves a thread that goes on reading
        except (PersistenceError, OSError) as fault:
            raise self._commits.refusal(fault) from fault

    # -- its life --------------------------------------------------------------------------------------------------

    @property
    def fault(self) -> str | None:
        """Why nothing can be stored, or None."""
        if self._bar:
            return self._bar.contradiction or "it was not compared with its stream"
        return self._commits.fault

    @property
    def contradiction(self) -> str:
        """Why this log is not to be used: what its witness has against it, or ""."""
        return self._bar.contradiction if self._bar else ""

    def await_witness(self) -> None:
        """Take no save until a witness (the stream) has said that it agrees."""
        self._bar = Bar(self.chain, self._refuse)
        self._compared.clear()

    def agree(self) -> None:
        """The witness holds this log, or none: what waits is stored, in its order."""
        if self._damage:
            return
        bar, self._bar = self._bar, None
        for write in bar.lift() if bar else ():
            self._commits.put(write)
        self._compared.set()

    def contradict(self, reason: str) -> None:
        """The witness holds another log than this one: nothing is added until it agrees."""
        self._bar = self._bar or Bar(self.chain, self._refuse)
        self._bar.contradict(self._damage or reason)
        self._compared.set()

    def condemn(self, damage: str) -> None:
        """The log itself is damaged: it is not used again in this process, whatever the witness says.

        What was read of it at start may be a part: a file that is put back is for a service that starts.
        """
        self._damage = damage
        self.contradict(damage)

    async def compared(self) -> None:
        """Wait until the witness has spoken for the first time; at once for a store without one."""
        await self._compared.wait()

    async def confirmed(self) -> None:
        """Return at once while saves are taken, else when they are; raises Contradicted, and NotCompared after
        PATIENCE_SECONDS."""
        if self._bar:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._compared.wait()
        if self._bar:
            raise Contradicted(self.chain, self.contradiction) if self.contradiction else NotCompared(self.chain)

    def watch(self) -> asyncio.Event:
        """An event that is set whenever the log has grown; whoever waits clears it first, then reads."""
        event = asyncio.Event()
        self._growth.append(event)
        return event

    async def close(self) -> None:
        """Refuse new saves and reads, store the saves that wait, let reads end, close the database."""
        if self._closing:
            return
        self._closing = True
        await asyncio.gather(*self._fetching, return_exceptions=True)
        if self._bar:
            self._bar.refuse_all(NotCompared(self.chain))
        while self._reads:  # SQLite ends the process when a connection is closed under a thread that uses it
            await asyncio.wait(self._reads)
        await asyncio.to_thread(self._commits.end)


def _verify(chain: Chain, recorder: Recorder, expected: int) -> int | None:
    head = Head()
    while envelopes := recorder.select_envelopes(head.notification_id + 1, 1000):
        broken = first_break(chain, head, envelopes)
        if broken is not None:
            return broken
        head = Head(envelopes[-1].notification_id, envelopes[-1].hash)
    return head.notification_id + 1 if head.notification_id < expected else None
