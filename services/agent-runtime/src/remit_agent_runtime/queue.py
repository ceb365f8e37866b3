"""Runs in this process: admitted by the ingress or found in the store, waiting for their turn, worked on, ended.

A run is in hand at most once. The bound is kept where it can be refused, at admission; what was accepted is never
turned away.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

import structlog

from remit_agent_runtime.fairness import FairGate
from remit_agent_runtime.worker import Cancellation
from remit_contracts.errors import Absent, Overloaded

RETRY_AFTER_SECONDS: Final = 5.0
CANCEL_AGAIN_SECONDS: Final = 2.0
"""Longer than a worker waits for its agent's end."""

Work = Callable[[str, UUID, Cancellation], Awaitable[None]]


class Job(Protocol):
    """A message of the work queue, held until its run has ended."""

    async def ack(self) -> None:
        """The run has ended: never again."""

    async def in_progress(self) -> None:
        """Somebody works on it: not yet."""

    async def nak(self, delay: float) -> None:
        """Nobody could work on it: again after `delay` seconds."""


@dataclass(slots=True)
class _InHand:
    fair_key: tuple[str, str]
    cancellation: Cancellation = field(default_factory=Cancellation)
    task: asyncio.Task[None] | None = None
    jobs: list[Job] = field(default_factory=list)
    claims: int = 0
    """Requests that keep its place; those under one idempotency key keep one place together."""


class RunQueue:
    """`limit` bounds runs in hand, `limit_per_user` those of one user; `turns` says how many are worked on at once."""

    def __init__(self, *, work: Work, turns: FairGate, limit: int, limit_per_user: int) -> None:
        self._work = work
        self._turns = turns
        self._limit = limit
        self._limit_per_user = limit_per_user
        self._in_hand: dict[UUID, _InHand] = {}
        self._per_user: Counter[tuple[str, str]] = Counter()
        self._closed = False

    def __len__(self) -> int:
        return len(self._in_hand)

    def __contains__(self, run_id: UUID) -> bool:
        return run_id in self._in_hand

    @property
    def in_line(self) -> int:
        """Runs that are worked on or wait for their turn; the others in hand keep a place until their job comes."""
        return sum(held.task is not None for held in self._in_hand.values())

    def has_in_line(self, run_id: UUID) -> bool:
        """Whether the run is one of those."""
        held = self._in_hand.get(run_id)
        return held is not None and held.task is not None

    def admit(self, tenant: str, user: str, run_id: UUID) -> None:
        """Keep a place for a run that is about to be accepted; raises Overloaded when there is none.

        Another request for the same run shares the place, and each gives back what it kept.
        """
        key = (tenant, user)
        if held := self._in_hand.get(run_id):
            held.claims += 1
            return
        full = len(self._in_hand) >= self._limit
        if full or self._per_user[key] >= self._limit_per_user:
            whose = f"{len(self._in_hand)} runs are" if full else f"{self._per_user[key]} of your runs are"
            raise Overloaded(
                f"{whose} waiting or running, which is the limit: try again later",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        self._hold(key, run_id).claims = 1

    def withdraw(self, run_id: UUID) -> None:
        """Give back what a request kept, unless the run is in line: it was not accepted, or ended before its job came.

        The place is free with the last of those requests: what the others keep may be that of the accepted run.
        """
        held = self._in_hand.get(run_id)
        if held is None:
            return
        held.claims -= 1
        if held.claims <= 0 and held.task is None:
            self._let_go(run_id)

    def put(self, tenant: str, user: str, run_id: UUID, job: Job | None = None) -> None:
        """Have the run worked on. A second job for a run in hand is only remembered, to be acknowledged with the
        first."""
        held = self._in_hand.get(run_id) or self._hold((tenant, user), run_id)
        if job is not None:
            held.jobs.append(job)
        if held.task is None and not self._closed:
            held.task = asyncio.create_task(self._take_turn(tenant, run_id, held), name=f"run {run_id.hex}")
            held.task.add_done_callback(lambda _: self._never_begun(run_id, held))

    async def cancel(self, run_id: UUID, *, by: str) -> bool:
        """Stop work on a run for `by`. True when its worker has recorded the end; else it is the caller's to record:
        no worker had the run yet, or it was just at its end."""
        held = self._in_hand.get(run_id)
        if held is None or held.task is None:
            return False
        held.cancellation.by = held.cancellation.by or by
        await _end([(held.task, held.cancellation)])
        return held.cancellation.recorded

    async def keep_jobs(self) -> None:
        """Tell the work queue that the jobs in hand are in hand."""
        for held in list(self._in_hand.values()):
            for job in held.jobs:
                await job.in_progress()

    async def close(self) -> None:
        """Stop all work without ending any run: they are taken up again at the next start."""
        self._closed = True
        await _end([(held.task, held.cancellation) for held in self._in_hand.values() if held.task])

    async def _take_turn(self, tenant: str, run_id: UUID, held: _InHand) -> None:
        ended = False
        try:
            async with self._turns.turn(held.fair_key):
                await self._work(tenant, run_id, held.cancellation)
            ended = True
        except asyncio.CancelledError:
            if not held.cancellation.by:
                raise
            # Cancelled in its turn's line, or so late that its worker could not record it: whoever cancels does.
        except Absent as gone:  # an erased user's run, or a job that names no run of ours
            structlog.get_logger().warning("run.absent", run=run_id.hex, tenant=tenant, reason=gone.reason)
            ended = True
        except Exception as fault:
            structlog.get_logger().warning("run.owed", run=run_id.hex, tenant=tenant, error=str(fault)[:300])
        finally:
            self._let_go(run_id)
            if not self._closed:
                await self._release(held.jobs, ended=ended)

    def _never_begun(self, run_id: UUID, held: _InHand) -> None:
        """A task that is cancelled before its first step comes to no `finally`. Its jobs come again by themselves."""
        if self._in_hand.get(run_id) is held:
            self._let_go(run_id)

    async def _release(self, jobs: list[Job], *, ended: bool) -> None:
        for job in jobs:
            try:
                await (job.ack() if ended else job.nak(RETRY_AFTER_SECONDS))
            except Exception as fault:  # the bus is away: the job comes again, and finds its run ended
                structlog.get_logger().info("job.not_released", error=str(fault)[:200])

    def _hold(self, key: tuple[str, str], run_id: UUID) -> _InHand:
        held = self._in_hand[run_id] = _InHand(key)
        self._per_user[key] += 1
        return held

    def _let_go(self, run_id: UUID) -> None:
        held = self._in_hand.pop(run_id)
        self._per_user[held.fair_key] -= 1
        if not self._per_user[held.fair_key]:
            del self._per_user[held.fair_key]


async def _end(work: Sequence[tuple[asyncio.Task[None], Cancellation]]) -> None:
    """Cancel, and again, should one be swallowed; a worker that records a run's end is left to do it."""
    while unended := [(task, cancellation) for task, cancellation in work if not task.done()]:
        for task, cancellation in unended:
            if not cancellation.heard:
                task.cancel()
        await asyncio.wait([task for task, _ in unended], timeout=CANCEL_AGAIN_SECONDS)
