"""Reading a whole stream message by message, without a consumer: for comparing copies, and after a stream went backwards.

The service may neither delete nor make other consumers, so each message is asked for by its sequence, many at a time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

from nats.aio.msg import Msg

from remit_audit.follower import event_in
from remit_chassis.streams import ask_jetstream
from remit_contracts.errors import Tampered, Unavailable
from remit_contracts.events import Envelope

if TYPE_CHECKING:
    from nats.aio.client import Client

WINDOW = 64
_NO_MESSAGE = 10037


class Read(NamedTuple):
    """One sequence of a stream: its event, or why there is none. `gone` says that the server has no message there."""

    sequence: int
    envelope: Envelope | None = None
    fault: str = ""
    gone: bool = False


async def read_stream(nc: Client, stream: str, tenant: str, first: int, last: int) -> AsyncIterator[Read]:
    """Every sequence from `first` to `last`, in order; raises Unavailable."""
    for start in range(first, last + 1, WINDOW):
        for read in await asyncio.gather(
            *(_read(nc, stream, tenant, sequence) for sequence in range(start, min(start + WINDOW, last + 1)))
        ):
            yield read


async def _read(nc: Client, stream: str, tenant: str, sequence: int) -> Read:
    answer = await ask_jetstream(nc, f"STREAM.MSG.GET.{stream}", {"seq": sequence})
    if error := answer.get("error"):
        if error.get("err_code") == _NO_MESSAGE:
            return Read(sequence, fault="no message", gone=True)
        raise Unavailable(f"{stream} cannot be read: {error.get('description')}")
    try:
        stored = answer["message"]
        headers = _headers(base64.b64decode(stored.get("hdrs", "")))
        message = Msg(nc, subject=stored["subject"], data=base64.b64decode(stored.get("data", "")), headers=headers)
        return Read(sequence, event_in(tenant, message))
    except (Tampered, KeyError, TypeError, UnicodeDecodeError, binascii.Error) as fault:
        return Read(sequence, fault=str(fault))


def _headers(raw: bytes) -> dict[str, str]:
    """Headers as stored: `NATS/1.0`, then a line each."""
    lines = raw.decode().split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
