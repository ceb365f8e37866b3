"""What the runtime and its tool host say to each other over one socketpair: frames of a 4-byte length and JSON.

The runtime speaks first (`Setup`), the host answers `Ready`; then calls and cancellations go one way and outcomes the
other, in any order, matched by `id`. Between them the host says how many of its threads are `Overdue`, as that changes.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
LIMIT_BYTES: Final = 256 * 1024
"""Buffer of a stream reader."""

_LENGTH = struct.Struct(">I")


class FrameTooLarge(ValueError):
    """A frame over MAX_FRAME_BYTES: the other side is not what it should be, or a result was not capped."""


class Setup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where things lie. Paths only: no secret crosses the socket or stands in an argument list."""

    home: str
    key_file: str
    permit_public_key_file: str
    broker_public_key_file: str
    threads: int = 4
    overdue_seconds: float = 5.0
    memory_limit_bytes: int = 1024**3


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The host takes calls, or says why it never will."""

    pid: int = 0
    refused: str = ""


class Call(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="call"):
    """One tool call. Tenant and user are not said here: the permit proves them."""

    id: int
    permit: str
    sealed_lease: str | None
    tool: str
    arguments: dict[str, Any]
    idempotency_key: str
    deadline_seconds: float


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="cancel"):
    """Nobody waits for this call any more."""

    id: int


class Overdue(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="overdue"):
    """So many threads work on although their call ended `overdue_seconds` ago, and cannot be told to stop."""

    threads: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="outcome"):
    """What became of a call; `error` is `{"code", "reason"}`."""

    id: int
    ok: bool
    content: Any = None
    error: dict[str, str] | None = None
    withheld: dict[str, Any] = {}
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


def frame(message: msgspec.Struct) -> bytes:
    """The bytes of one message; raises FrameTooLarge."""
    body = _ENCODER.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"a message of {len(body)} bytes is over the {MAX_FRAME_BYTES} that a frame may have")
    return _LENGTH.pack(len(body)) + body


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next message's JSON, or None when the other side has gone; raises FrameTooLarge."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_FRAME_BYTES:
            raise FrameTooLarge(f"a frame of {length} bytes was announced and {MAX_FRAME_BYTES} are allowed")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The body of every frame until the other side has gone: all that came together are read at once.

    Raises FrameTooLarge.
    """
    pending = b""
    while chunk := await _next_bytes(reader):
        pending = pending + chunk if pending else chunk
        start, end = 0, len(pending)
        while end - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(pending, start)
            if length > MAX_FRAME_BYTES:
                raise FrameTooLarge(f"a frame of {length} bytes was announced and {MAX_FRAME_BYTES} are allowed")
            begin = start + _LENGTH.size
            if end - begin < length:
                break
            start = begin + length
            yield pending[begin:start]
        pending = pending[start:]


async def _next_bytes(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(LIMIT_BYTES)
    except ConnectionError:
        return b""


def decode_request(body: bytes) -> Call | Cancel:
    """Raises msgspec.MsgspecError."""
    return _REQUESTS.decode(body)


def decode_said(body: bytes) -> Outcome | Overdue:
    """Raises msgspec.MsgspecError."""
    return _SAID.decode(body)


_ENCODER = msgspec.json.Encoder()
_REQUESTS: msgspec.json.Decoder[Call | Cancel] = msgspec.json.Decoder(Call | Cancel)
_SAID: msgspec.json.Decoder[Outcome | Overdue] = msgspec.json.Decoder(Outcome | Overdue)
decode_setup = msgspec.json.Decoder(Setup).decode
decode_ready = msgspec.json.Decoder(Ready).decode
