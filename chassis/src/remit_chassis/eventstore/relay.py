"""The relay: a store's log, copied into the tenant's stream, in order and without a gap.

The store is the record and the stream its copy, so the stream is asked where it stands whenever a connection begins:
the last message of our own must be the event that the store has under that number, and the copy goes on behind it.
Nothing is remembered outside of the two. What comes of it:

- a stream that lost its end, or everything, is filled again from the store;
- message ids are a keyed hash, so nobody can claim one in advance; and still `duplicate` is not taken for success: the
  message that is meant is read and compared. A foreign one is an alarm, and the event goes out under another id;
- a stream that has what the store has not is an alarm, and nothing is added to it, nor to the store.

The store takes its first save only after the first comparison: see witness.py.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from remit_chassis.eventstore.chain import Chain
from remit_chassis.eventstore.jetstream import Link, LinkLost, NoStream, OrderedConnection, StreamMessage
from remit_chassis.eventstore.store import EventStore
from remit_contracts import events, subjects
from remit_contracts.errors import Tampered, Unavailable
from remit_contracts.events import Envelope

WINDOW = 256
LINGER_SECONDS = 0.05
"""How long new events wait for more: a window for every single one costs the service, the bus and whoever reads the
stream a wake-up each, at the moment when the next step of the same run is due."""
MESSAGE_ID = "Nats-Msg-Id"
RELAYED = "Remit-Relayed"
"""On a message out of order (a range published again): how far the copy had come. A relay that finds such a message
last goes on behind that number instead of the message's own."""

_CANCEL_AGAIN_SECONDS = 0.2
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 5.0

Alarm = Callable[[str, dict[str, Any]], None]


class Forked(Exception):
    """The stream's last message of ours is not the event that the store has under its number."""


class Refused(Exception):
    """The stream refuses: it is full, or absent."""


def message_id(key: bytes, envelope: Envelope) -> str:
    """HMAC-SHA256, in hex, over `service|tenant|notification id|hash`."""
    named = f"{envelope.service}|{envelope.tenant}|{envelope.notification_id}|{envelope.hash.hex()}"
    return hmac.digest(key, named.encode(), "sha256").hex()


def log_alarm(code: str, detail: dict[str, Any]) -> None:
    """The default alarm: an error in the service's log."""
    structlog.get_logger().error(code, **detail)


class Relay:
    """Copies one store's log for as long as it runs. `problem` says what holds it up; it keeps trying by itself."""

    def __init__(self, store: EventStore, link: Link, key: bytes, *, alarm: Alarm = log_alarm) -> None:
        self.position = 0
        """The copy is complete up to this number, as far as is known on this connection."""
        self.problem = ""
        self._store = store
        self._link = link
        self._key = key
        self._alarm = alarm
        self._chain: Chain = store.chain
        self._stream = subjects.events_stream(store.chain.tenant)
        self._filter = subjects.events_of_service(store.chain.tenant, store.chain.service)
        self._wake = store.watch()
        store.await_witness()
        self._settled = asyncio.Event()
        self._unanswered: Sequence[Envelope] = ()
        self._requests: deque[tuple[int, int, asyncio.Future[int]]] = deque()
        self._stopping = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def lag(self) -> int:
        """How many events the store has that are not known to be in the stream."""
        return max(0, self._store.head().notification_id - self.position)

    async def caught_up(self) -> None:
        """Wait until everything stored by now is in the stream."""
        aim = self._store.head().notification_id
        while self.position < aim:
            self._settled.clear()
            await self._settled.wait()

    async def republish(self, first: int, last: int) -> int:
        """Publish events `first` to `last`, both included, again; returns how many.

        What was never published comes in its turn instead. Raises Unavailable when the connection is lost over it or
        the relay stops.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._stopping.is_set():
            raise Unavailable(f"the relay of {self._chain} has stopped")
        self._requests.append((first, last, future))
        self._wake.set()
        return await future

    async def stop(self) -> None:
        """End; the next start finds out by itself how far the copy has come."""
        self._stopping.set()
        self._wake.set()
        while not self._task.done():  # Python 3.11's `wait_for`, with which the bus client connects, can swallow it
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CANCEL_AGAIN_SECONDS)
        for _, _, future in self._requests:
            if not future.done():
                future.set_exception(Unavailable(f"the relay of {self._chain} has stopped"))

    # -- its loop --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                await self._store.open()
                connection = await self._link.connection()
                connection.on_end.append(self._wake)
                try:
                    await self._resume(connection)
                    pause = _FIRST_PAUSE_SECONDS
                    await self._follow(connection)
                finally:
                    connection.on_end.remove(self._wake)
            except NoStream as fault:
                self._store.agree()  # what does not exist holds no other log
                await self._something_to_do(0)  # and a tenant without events needs none yet
                self._report("relay.waiting", str(fault))
            except (LinkLost, Refused) as fault:
                self._report("relay.waiting", str(fault))
            except Forked as fault:
                self._store.contradict(str(fault))
                self._report("relay.forked", str(fault))
            except Tampered as fault:
                self._store.condemn(fault.reason)
                self._report("relay.tampered", fault.reason)
                await self._stopping.wait()
            except Unavailable as fault:
                self._report("relay.waiting", fault.reason)
            except Exception as fault:
                structlog.get_logger().exception("relay.failed", chain=str(self._chain))
                self._report("relay.failed", repr(fault)[:200])
            await self._pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _something_to_do(self, position: int) -> None:
        while self._store.head().notification_id <= position and not self._requests:
            self._wake.clear()
            await self._wake.wait()

    async def _resume(self, connection: OrderedConnection) -> None:
        """Find out where the stream stands, and close the gap that an unanswered window may have left."""
        found = await connection.last(self._stream, self._filter)
        self.position = 0 if found is None else await self._stands_at(found)
        within = [envelope for envelope in self._unanswered if envelope.notification_id <= self.position]
        self._unanswered = ()
        if within:
            await self._send(connection, within, relayed=self.position)
        self.problem = ""
        self._store.agree()
        self._settled.set()

    async def _stands_at(self, found: StreamMessage) -> int:
        try:
            envelope = events.from_message(found.headers, found.data, found.subject)
        except Tampered as fault:
            raise Forked(f"the last message of {self._stream} (sequence {found.sequence}): {fault.reason}") from None
        stored = await self._store.read(envelope.notification_id, 1)
        if not stored or stored[0] != envelope:
            raise Forked(
                f"{self._stream} ends with event {envelope.notification_id} of {self._chain}, hash "
                f"{envelope.hash.hex()[:16]}, which the store has not: one of the two was rolled back or altered"
            )
        relayed = found.headers.get(RELAYED, "")
        ahead = int(relayed) if relayed.isdecimal() else 0
        if ahead > envelope.notification_id and not await self._store.read(ahead, 1):
            raise Forked(
                f"{self._stream} has events of {self._chain} up to number {ahead}, and the store has not: one of the "
                f"two was rolled back or altered"
            )
        return max(envelope.notification_id, ahead)

    async def _follow(self, connection: OrderedConnection) -> None:
        while not connection.ended.is_set():
            self._wake.clear()
            if self._requests:
                await self._republish_next(connection)
                continue
            window = await self._store.read(self.position + 1, WINDOW)
            if not window:
                await self._wake.wait()
                await asyncio.sleep(LINGER_SECONDS)
                continue
            self._unanswered = window
            await self._send(connection, window)
            self._unanswered = ()
            self.position = window[-1].notification_id
            self._settled.set()
        raise LinkLost("the connection to the bus ended")

    async def _republish_next(self, connection: OrderedConnection) -> None:
        first, last, future = self._requests.popleft()
        last = min(last, self.position)
        count = 0
        try:
            while first <= last:
                window = await self._store.read(first, min(WINDOW, last - first + 1))
                await self._send(connection, window, again=True, relayed=self.position)
                count += len(window)
                first += WINDOW
        except BaseException:
            if not future.done():
                future.set_exception(Unavailable(f"the bus was lost after {count} events: ask again"))
            raise
        if not future.done():
            future.set_result(count)

    # -- one window ------------------------------------------------------------------------------------------------

    async def _send(
        self, connection: OrderedConnection, window: Sequence[Envelope], *, again: bool = False, relayed: int = 0
    ) -> None:
        """Publish a window and make sure that each event of it is in the stream; raises LinkLost or Refused.

        `again` gives the messages ids that the stream cannot know yet.
        """
        suffix = f".{secrets.token_hex(8)}" if again else ""
        acks = await connection.publish([self._message(envelope, suffix, relayed) for envelope in window])
        missing = []
        fault = ""
        for envelope, ack in zip(window, acks, strict=True):
            if ack.fault:
                fault = fault or ack.fault
                missing.append(envelope)
            elif ack.duplicate and not await self._is_stored(connection, envelope, ack.sequence):
                self._alarm(
                    "relay.forged",
                    {
                        "chain": str(self._chain),
                        "notification_id": envelope.notification_id,
                        "stream": self._stream,
                        "sequence": ack.sequence,
                    },
                )
                missing.append(envelope)
        if not missing:
            return
        if len(missing) == len(window) and fault:
            raise Refused(f"{self._stream} refuses: {fault}")
        # Later events of the window are stored already, so these come behind them, and say so.
        await self._send(connection, missing, again=True, relayed=max(relayed, window[-1].notification_id))

    def _message(self, envelope: Envelope, suffix: str, relayed: int) -> tuple[str, bytes, dict[str, str]]:
        headers = envelope.to_headers()
        headers[MESSAGE_ID] = message_id(self._key, envelope) + suffix
        if relayed:
            headers[RELAYED] = str(relayed)
        return envelope.subject, envelope.state, headers

    async def _is_stored(self, connection: OrderedConnection, envelope: Envelope, sequence: int) -> bool:
        found = await connection.message(self._stream, sequence)
        if found is None:
            return False
        try:
            return events.from_message(found.headers, found.data, found.subject) == envelope
        except Tampered:
            return False

    def _report(self, code: str, problem: str) -> None:
        """Say what holds the relay up, once for as long as it is the same."""
        if problem != self.problem:
            self.problem = problem
            if code == "relay.waiting":
                structlog.get_logger().warning(code, chain=str(self._chain), problem=problem)
            else:
                self._alarm(code, {"chain": str(self._chain), "problem": problem})

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return
