"""Reading a whole stream message by message, without a consumer: to compare copies, and after it went backwards.

The service may neither delete its consumer nor make others, so each message is asked for by its sequence, many at a
time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from remit_audit.follower import event_in
from remit_contracts.errors import Tampered, Unavailable
from remit_contracts.events import NOTIFICATION_ID, Envelope
from remit_contracts.subjects import SERVICES

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

WINDOW = 64
ANSWER_SECONDS = 5.0


class Read(NamedTuple):
    """One sequence of a stream: its event, or why there is none and which it seems to be."""

    sequence: int
    envelope: Envelope | None = None
    fault: str = ""
    service: str = ""
    notification_id: int | None = None


async def read_stream(nc: Client, stream: str, tenant: str, first: int, last: int) -> AsyncIterator[Read]:
    """Every sequence from `first` to `last`, in order; raises Unavailable."""
    context = nc.jetstream(timeout=ANSWER_SECONDS)
    for start in range(first, last + 1, WINDOW):
        sequences = range(start, min(start + WINDOW, last + 1))
        for read in await asyncio.gather(*(_read(context, stream, tenant, sequence) for sequence in sequences)):
            yield read


async def _read(context: JetStreamContext, stream: str, tenant: str, sequence: int) -> Read:
    try:
        message = await context.get_msg(stream, sequence)
    except NotFoundError:
        return Read(sequence, fault="the stream has no message there")
    except (NatsError, OSError) as fault:
        raise Unavailable(f"{stream} cannot be read: {fault or type(fault).__name__}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        return Read(sequence, fault=f"the message there has another form ({type(fault).__name__})")
    headers, subject = message.headers or {}, message.subject or ""
    try:
        return Read(sequence, event_in(tenant, headers, message.data or b"", subject))
    except Tampered as fault:
        number = headers.get(NOTIFICATION_ID, "")
        said = subject.split(".")
        return Read(
            sequence,
            fault=fault.reason,
            service=said[4] if len(said) == 6 and said[4] in SERVICES else "",
            notification_id=int(number) if number.isdecimal() and len(number) < 19 else None,
        )
