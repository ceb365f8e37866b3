"""A connection to the bus on which order can be relied upon.

The client library's own reconnecting would break it: what it had written to the dead socket is lost, and what it had
buffered behind goes out on the new one, so a later event would be stored and an earlier one not. A connection here ends
once and for all when its socket does; the next one starts by asking the stream where it stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from remit_chassis import direct
from remit_chassis.streams import stream_names

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

Connect = Callable[..., Awaitable["Client"]]
"""Connects as the service, with the further options of `nats.connect` that are given."""

ANSWER_SECONDS = 10.0
PENDING_BYTES = 64 * 1024 * 1024
_NO_MESSAGE = 10037  # the server's err_codes for "no message found" and "stream not found"
_NO_STREAM = 10059


class LinkLost(Exception):
    """The connection ended, or the stream's answers stay away: what was not acknowledged may be stored or not."""


class NoStream(Exception):
    """There is no stream of that name."""


class Ack(NamedTuple):
    """The stream's answer to one publish. `fault` is empty when it was stored, or known already (`duplicate`)."""

    sequence: int
    duplicate: bool
    fault: str


class StreamMessage(NamedTuple):
    """A message as the stream has it."""

    sequence: int
    subject: str
    headers: Mapping[str, str]
    data: bytes


class OrderedConnection:
    """One connection that never reconnects: what is published is stored in the order of the calls, or a prefix is."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._token_at = len(self._inbox) + 1
        self._answers: dict[str, asyncio.Future[Ack]] = {}
        self._count = 0
        self.ended = asyncio.Event()
        self.on_end: list[asyncio.Event] = []
        """Set, like `ended`, when the connection has ended."""

    @classmethod
    async def open(cls, connect: Connect) -> OrderedConnection:
        """Connect; raises LinkLost when that fails."""
        opened: list[OrderedConnection] = []

        async def closed() -> None:
            for connection in opened:
                connection._end()

        async def quiet(fault: Exception) -> None:
            """Faults show in the answers that stay away; the library would print them."""

        try:
            client = await connect(
                allow_reconnect=False,
                max_reconnect_attempts=0,
                closed_cb=closed,
                disconnected_cb=closed,
                error_cb=quiet,
                pending_size=PENDING_BYTES,
            )
        except (NatsError, OSError, TimeoutError) as fault:
            raise LinkLost(f"no connection to the bus: {type(fault).__name__}") from fault
        connection = cls(client)
        opened.append(connection)
        try:
            await direct.subscribe(client, f"{connection._inbox}.*", connection._answered)
        except BaseException as fault:
            await client.close()
            if isinstance(fault, NatsError | OSError):
                raise LinkLost(f"no connection to the bus: {type(fault).__name__}") from fault
            raise
        if not client.is_connected:
            connection._end()
        return connection

    async def publish(self, messages: Sequence[tuple[str, bytes, dict[str, str]]]) -> list[Ack]:
        """Publish `(subject, data, headers)` one behind the other without waiting, then wait for all answers.

        Raises LinkLost, and ends the connection, when an answer stays away.
        """
        loop = asyncio.get_running_loop()
        answers = []
        try:
            for subject, data, headers in messages:
                if self.ended.is_set():
                    raise LinkLost("the connection to the bus ended")
                self._count += 1
                token = str(self._count)
                answer = self._answers[token] = loop.create_future()
                answers.append((token, answer))
                await self._client.publish(subject, data, reply=f"{self._inbox}.{token}", headers=headers)
            _, late = await asyncio.wait([answer for _, answer in answers], timeout=ANSWER_SECONDS)
            if late:
                await self.close()
                raise LinkLost(f"{len(late)} of {len(messages)} publishes were not answered in {ANSWER_SECONDS:.0f} s")
            return [answer.result() for _, answer in answers]
        except (NatsError, OSError) as fault:
            await self.close()
            raise LinkLost(f"publishing failed: {type(fault).__name__}") from fault
        finally:
            for token, answer in answers:
                self._answers.pop(token, None)
                if answer.done() and not answer.cancelled():
                    answer.exception()  # seen: a lost link fails every one of them alike

    async def last(self, stream: str, subject_filter: str) -> StreamMessage | None:
        """The newest message whose subject matches; None when the stream has none. Raises NoStream or LinkLost."""
        return await self._get(stream, subject=subject_filter)

    async def message(self, stream: str, sequence: int) -> StreamMessage | None:
        """The message with that sequence; None when there is none. Raises NoStream or LinkLost."""
        return await self._get(stream, seq=sequence)

    async def streams(self) -> list[str]:
        """The name of every stream; raises Unavailable."""
        return await stream_names(self._client)

    async def close(self) -> None:
        """End the connection."""
        self._end()
        await self._client.close()

    async def _get(self, stream: str, **which: Any) -> StreamMessage | None:
        try:
            found = await self._client.jetstream(timeout=ANSWER_SECONDS).get_msg(stream, **which)
        except NotFoundError as fault:
            if fault.err_code == _NO_MESSAGE:
                return None
            if fault.err_code == _NO_STREAM:
                raise NoStream(f"the stream {stream} does not exist yet") from fault
            raise LinkLost(f"stream {stream}: {fault.description}") from fault
        except (NatsError, OSError, TimeoutError) as fault:
            raise LinkLost(f"stream {stream} does not answer: {type(fault).__name__}") from fault
        return StreamMessage(found.seq or 0, found.subject or "", found.headers or {}, found.data or b"")

    def _answered(self, message: Msg) -> None:
        answer = self._answers.pop(message.subject[self._token_at :], None)
        if answer is not None and not answer.done():
            answer.set_result(_ack(message))

    def _end(self) -> None:
        self.ended.set()
        for event in self.on_end:
            event.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(LinkLost("the connection to the bus ended"))


class Link:
    """The current OrderedConnection of a service, shared by the relays of all its tenants; made anew after it ended."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._lock = asyncio.Lock()
        self._current: OrderedConnection | None = None

    async def connection(self) -> OrderedConnection:
        """The connection that lives; raises LinkLost when none can be made."""
        async with self._lock:
            if self._current is None or self._current.ended.is_set():
                self._current = await OrderedConnection.open(self._connect)
            return self._current

    async def close(self) -> None:
        """End the current connection."""
        if self._current is not None:
            await self._current.close()


def _ack(message: Msg) -> Ack:
    if message.headers and message.headers.get("Status"):
        return Ack(0, False, "no stream listens on this subject")
    try:
        said = orjson.loads(message.data)
        if fault := said.get("error"):
            return Ack(0, False, str(fault.get("description", "refused"))[:200])
        return Ack(int(said["seq"]), bool(said.get("duplicate", False)), "")
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return Ack(0, False, "an answer that is no stream's")
