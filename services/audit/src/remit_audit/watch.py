"""Noticing what does not come: a stream that went backwards, lost messages or was replaced, a service that is silent or
whose log is not the one that the ledger has.

A truncated stream gives no error and reuses its sequences, so the highest one seen is remembered with the ledger. A
consumer that is ahead of its stream gets nothing; until the stream has caught up, its messages are read one by one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from remit_audit.findings import Finding
from remit_audit.follower import Follower
from remit_audit.missing import Range
from remit_audit.pull import BATCH, DURABLE
from remit_audit.sweep import read_stream
from remit_chassis.streams import ask_jetstream, check_stream, stream_info
from remit_contracts import subjects
from remit_contracts.errors import Refusal
from remit_contracts.identity import SYSTEM_USER

if TYPE_CHECKING:
    from remit_audit.alarms import Alarms
    from remit_chassis.service import Service

HEAD_ANSWER_SECONDS = 2.0
MARK = "stream"


class Head(NamedTuple):
    """How far a service says that its log goes."""

    number: int
    digest: bytes


class Watch:
    """Looks at one tenant's stream and services when it is told to. `unfit` says why the stream cannot be trusted."""

    def __init__(
        self, service: Service, follower: Follower, alarms: Alarms, *, silent_seconds: float, missing_seconds: float
    ) -> None:
        self.unfit = ""
        self._service = service
        self._follower = follower
        self._tenant = follower.tenant
        self._alarms = alarms
        self._silent_seconds = silent_seconds
        self._silent_since: dict[str, float] = {}
        self._ends = follower.missing(ask_after=missing_seconds / 2)  # the newest events may be on their way yet
        self._swept = -1

    # -- the stream ------------------------------------------------------------------------------------------------

    async def look_at_stream(self) -> None:
        """Compare the stream's settings and state with what they must be and were; raises Unavailable."""
        stream = self._follower.stream
        info = await stream_info(self._service.nc, stream)
        if info is None:
            self.unfit = f"the stream {stream} is gone"
            await self._raise("stream.replaced", self.unfit)
            return
        self.unfit = "; ".join(check_stream(info))
        if self.unfit:
            await self._raise("stream.unfit", self.unfit)
        state, created = info["state"], str(info["created"])
        remembered = await asyncio.to_thread(self._follower.ledger.remembered, MARK)
        mark = orjson.loads(remembered) if remembered else {"created": created, "last": 0}
        await self._compare(state, created, mark)
        await self._catch_up(state["last_seq"])
        now = {"created": created, "last": state["last_seq"]}
        if now != mark or not remembered:
            await asyncio.to_thread(self._follower.ledger.remember, MARK, orjson.dumps(now).decode())

    async def _compare(self, state: dict[str, Any], created: str, mark: dict[str, Any]) -> None:
        lost = state["last_seq"] - state["messages"]
        if created != mark["created"]:
            reason = f"made on {mark['created']} when last seen, and now one made on {created}"
            await self._raise("stream.replaced", reason)
            self._swept = 0
        elif state["last_seq"] < mark["last"]:
            reason = f"ended with sequence {mark['last']} when last seen, and now with {state['last_seq']}"
            await self._raise("stream.rewound", reason)
            self._swept = 0
        if lost > 0:
            await self._raise("stream.shrunk", f"{lost} messages of the stream are gone", str(lost))

    async def _catch_up(self, last: int) -> None:
        """Read what the consumer will not be given because it is ahead of the stream."""
        if self._swept < 0:
            if not await self._consumer_is_ahead():
                return
            self._swept = 0
        seen = await self._sweep(self._swept + 1, last)
        whole, self._swept = self._swept == 0, last
        if whole:
            await self._ask_for_what_the_stream_lost(seen)
        if not await self._consumer_is_ahead():
            self._swept = -1

    async def _consumer_is_ahead(self) -> bool:
        """Whether messages were delivered that the stream has not. Asked in this order, a stream that grows is not
        taken for one that was cut off."""
        answer = await ask_jetstream(self._service.nc, f"CONSUMER.INFO.{self._follower.stream}.{DURABLE}")
        info = await stream_info(self._service.nc, self._follower.stream)
        return info is not None and answer.get("delivered", {}).get("stream_seq", 0) > info["state"]["last_seq"]

    async def _sweep(self, first: int, last: int) -> dict[str, set[int]]:
        seen: dict[str, set[int]] = {}
        waiting = []
        async for read in read_stream(self._service.nc, self._follower.stream, self._tenant, first, last):
            if read.envelope is None:
                found = Finding("stream", "record.altered", read.fault, read.service, read.notification_id)
                await self._alarms.raise_(self._tenant, found, f"{read.sequence}")
                continue
            seen.setdefault(read.envelope.service, set()).add(read.envelope.notification_id)
            waiting.append(read.envelope)
            if len(waiting) == BATCH:
                await self._follower.receive(waiting)
                waiting = []
        if waiting:
            await self._follower.receive(waiting)
        return seen

    async def _ask_for_what_the_stream_lost(self, seen: dict[str, set[int]]) -> None:
        for service in self._follower.ledger.services():
            last, _ = self._follower.ledger.head(service)
            for first, end in missing_ranges(seen.get(service, set()), last):
                await self._follower.lost(service, first, end)

    async def _raise(self, code: str, reason: str, episode: str = "") -> None:
        await self._alarms.raise_(self._tenant, Finding("stream", code, reason), episode)

    # -- the services ----------------------------------------------------------------------------------------------

    async def heads(self) -> dict[str, Head]:
        """Ask every service how far its log goes; those that do not answer are not in the result."""
        answers = await asyncio.gather(*map(self._head, subjects.SERVICES))
        return {service: head for service, head in zip(subjects.SERVICES, answers, strict=True) if head}

    async def compare_heads(self) -> None:
        """Raise alarms for services that are silent, rewound or forked, and ask again for events that stay away."""
        before = {service: self._follower.ledger.head(service)[0] for service in subjects.SERVICES}
        heads = await self.heads()
        now = asyncio.get_running_loop().time()
        behind: list[Range] = []
        for service in subjects.SERVICES:
            if head := heads.get(service):
                self._silent_since.pop(service, None)
                await self._compare_head(service, head, before[service])
                reached = self._follower.ledger.head(service)[0]
                if reached < head.number:
                    behind.append((service, reached + 1, head.number))
            elif now - self._silent_since.setdefault(service, now) > self._silent_seconds:
                reason = f"{service} has not said for {self._silent_seconds:g} s how far its log goes"
                since = f"{self._silent_since[service]:.3f}"
                await self._alarms.raise_(self._tenant, Finding("store", "service.silent", reason, service), since)
        await self._ends.look(behind, now=now)

    async def _compare_head(self, service: str, head: Head, before: int) -> None:
        ledger = self._follower.ledger
        if head.number < before:
            reason = f"the log of {service} ends with {head.number}, and the ledger has {before} of its events"
            await self._alarms.raise_(self._tenant, Finding("store", "store.rewound", reason, service, head.number + 1))
            return
        known = await asyncio.to_thread(ledger.hash_at, service, head.number) if head.number else None
        if known not in (None, head.digest):
            reason = (
                f"the log of {service} has {head.digest.hex()} there, and the ledger {known.hex() if known else ''}"
            )
            await self._alarms.raise_(self._tenant, Finding("store", "record.forked", reason, service, head.number))

    async def _head(self, service: str) -> Head | None:
        try:
            answer = orjson.loads(
                await self._service.ask(
                    self._tenant, SYSTEM_USER, service, "log-head", timeout_seconds=HEAD_ANSWER_SECONDS
                )
            )
            return Head(int(answer["last_notification_id"]), bytes.fromhex(answer["head_hash"]))
        except (Refusal, KeyError, TypeError, ValueError):
            return None


def missing_ranges(seen: set[int], last: int) -> list[tuple[int, int]]:
    """Ranges of 1 to `last` that are not in `seen`: ({1, 4}, 5) gives [(2, 3), (5, 5)]."""
    ranges, expected = [], 1
    for number in [*sorted(number for number in seen if number <= last), last + 1]:
        if number > expected:
            ranges.append((expected, number - 1))
        expected = number + 1
    return ranges
