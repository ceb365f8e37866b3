"""One tenant's event stream, followed into the tenant's ledger.

A message is acknowledged when the ledger has committed it, or has found that it is no event. Missing events are asked
for at the service that has them, again and again until they come; that they stay away is an alarm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import structlog
from nats.errors import Error as NatsError

from remit_audit.findings import Finding
from remit_audit.ledger import Ledger, Receipt
from remit_audit.missing import Missing
from remit_audit.pull import Pull
from remit_contracts import subjects
from remit_contracts.errors import Tampered, Unavailable
from remit_contracts.events import Envelope, from_message

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

ASK_AGAIN_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0

RaiseAlarm = Callable[[str, Finding, str], Awaitable[None]]
"""`raise_alarm(tenant, finding, episode)`."""
AskAgain = Callable[[str, str, int, int], None]
"""`ask_again(tenant, service, first, last)`: have a service publish a range again, without waiting for it."""


class Follower:
    """Runs until stopped. `refused` says why the ledger takes nothing more, and is empty while it does."""

    def __init__(
        self, nc: Client, ledger: Ledger, *, raise_alarm: RaiseAlarm, ask_again: AskAgain, missing_seconds: float
    ) -> None:
        self.ledger = ledger
        self.tenant = ledger.tenant
        self.stream = subjects.events_stream(ledger.tenant)
        self.refused = ""
        self.grown = asyncio.Condition()
        self._nc = nc
        self._raise_alarm = raise_alarm
        self._ask_again = ask_again
        self._missing_seconds = missing_seconds
        self._asked: dict[tuple[str, int], float] = {}
        self._gaps = self.missing(ask_after=0.0)

    async def run(self) -> None:
        """Follow; every failure of bus or disk is waited out."""
        pause = _FIRST_PAUSE_SECONDS
        while not self.refused:
            pull = Pull(self._nc, self.stream)
            try:
                await pull.start()
                while not self.refused:
                    await self._take(await pull.batch())
                    pause = _FIRST_PAUSE_SECONDS
            except (Unavailable, NatsError, OSError) as fault:
                structlog.get_logger().warning("audit.waiting", tenant=self.tenant, reason=str(fault)[:300])
            except Exception:  # a bug: what was not acknowledged comes again
                structlog.get_logger().exception("audit.failed", tenant=self.tenant)
            finally:
                await pull.stop()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def receive(self, envelopes: list[Envelope]) -> Receipt | None:
        """Give envelopes to the ledger and raise what it finds; None when it refuses."""
        try:
            receipt = await asyncio.to_thread(self.ledger.receive, envelopes)
        except Tampered as fault:
            await self.refuse(fault.reason)
            return None
        for found in receipt.findings:
            await self._raise_alarm(self.tenant, found, "")
        if receipt.appended:
            async with self.grown:
                self.grown.notify_all()
        return receipt

    async def refuse(self, reason: str) -> None:
        """Take and sign nothing more: what is stored contradicts what was signed."""
        self.refused = reason
        await self._raise_alarm(self.tenant, Finding("ledger", "checkpoint.contradicted", reason), "")

    async def ask_for_gaps(self) -> None:
        """Ask for every range that was missing the last time already: what comes a moment late is no gap."""
        gaps = await asyncio.to_thread(self.ledger.gaps)
        await self._gaps.look(gaps, now=asyncio.get_running_loop().time())

    def missing(self, *, ask_after: float) -> Missing:
        """Judges what of this tenant is missing, by one kind of look."""
        return Missing(seconds=self._missing_seconds, ask_after=ask_after, ask=self.ask, overdue=self._overdue)

    def ask(self, service: str, first: int, last: int) -> None:
        """Have a service publish a range again, once in ASK_AGAIN_SECONDS."""
        now = asyncio.get_running_loop().time()
        self._asked = {key: at for key, at in self._asked.items() if at > now - ASK_AGAIN_SECONDS}
        if (service, first) in self._asked:
            return
        self._asked[service, first] = now
        structlog.get_logger().warning(
            "audit.asked_again", tenant=self.tenant, origin=service, first_missing=first, last_missing=last
        )
        self._ask_again(self.tenant, service, first, last)

    async def lost(self, service: str, first: int, last: int) -> None:
        """The stream has lost what it had: an alarm at once, and the range is asked for."""
        reason = f"the stream lacks events {first} to {last} of {service}, which the ledger has"
        await self._raise_alarm(self.tenant, Finding("stream", "record.missing", reason, service, first), "")
        self.ask(service, first, last)

    async def _overdue(self, service: str, first: int) -> None:
        reason = (
            f"events of {service} from {first} on stay away for {self._missing_seconds:g} s, and were asked for again"
        )
        await self._raise_alarm(self.tenant, Finding("stream", "record.missing", reason, service, first), "")

    async def reaches(self, service: str, number: int) -> None:
        """Wait until the ledger has a service's event of that number."""
        async with self.grown:
            await self.grown.wait_for(lambda: self.ledger.head(service)[0] >= number)

    async def _take(self, messages: list[Msg]) -> None:
        envelopes: list[Envelope] = []
        for message in messages:
            try:
                envelopes.append(event_in(self.tenant, message.headers, message.data, message.subject))
            except Tampered as fault:
                sequence = message.metadata.sequence.stream
                found = Finding("stream", "record.altered", f"sequence {sequence}: {fault.reason}")
                await self._raise_alarm(self.tenant, found, "")
        if await self.receive(envelopes) is not None:
            await messages[-1].ack()


def event_in(tenant: str, headers: Mapping[str, str] | None, data: bytes, subject: str) -> Envelope:
    """The event in a message of a tenant's stream; raises Tampered."""
    envelope = from_message(headers, data, subject)
    if envelope.tenant != tenant:
        raise Tampered(f"an event of {envelope.tenant} lies in the stream of {tenant}")
    return envelope
