"""The worker: takes a run up, lets its agent go, and records exactly one end.

What ends a run: its agent's answer, a refusal, a spent budget, its time, a divergence, a cancellation, or a bug of
ours. What does not: a store that cannot be written, a conflict, the end of this process. Such a run stays owed, and is
taken up again.

An agent is a task of its own, because it may not hear of its end: Python 3.11's `wait_for`, which client libraries use,
can swallow a cancellation, and task groups then wait for ever. It is left behind, and finds every gate shut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

import structlog

from remit_agent_runtime.domain import Run, RunError
from remit_agent_runtime.inhand import Announce, RunInHand
from remit_agent_runtime.metering import CpuMetered
from remit_agent_runtime.model_gate import Diverged
from remit_agent_runtime.toolhost.catalog import ToolDescriptor
from remit_chassis.eventstore.store import EventStore
from remit_contracts.errors import Refusal

MAX_ATTEMPTS: Final = 10
"""A run that was taken up this often without an end is ended: it may be what ends the process."""

TIDY_SECONDS: Final = 1.0
"""How long an agent that is told to end is waited for."""

RunAgent = Callable[[RunInHand, Mapping[str, ToolDescriptor]], Awaitable[str]]
"""Lets the agent go and gives its answer: `loop.run_agent` with the gate bound."""


class AgentFailed(Exception):
    """The agent cannot go on; `error` is `{"code", "reason", "decision_id"?}`."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("reason", "")))
        self.error = error


class Stores(Protocol):
    """`EventStores`."""

    def of(self, tenant: str) -> EventStore:
        """The tenant's store."""


@dataclass(slots=True)
class Cancellation:
    """Whether somebody asked for a run's end: `by`, set before its task is cancelled, so that a shutdown is told apart.

    `heard` is set when the worker begins to record the end, which must not be disturbed, `recorded` once it is stored.
    """

    by: str = ""
    heard: bool = False
    recorded: bool = False


class Worker:
    """Shared by all runs of the process."""

    def __init__(
        self,
        *,
        stores: Stores,
        tools_of: Callable[[str], Mapping[str, ToolDescriptor]],
        run_agent: RunAgent,
        clock: Callable[[], datetime],
        announce: Announce | None = None,
    ) -> None:
        self._stores = stores
        self._tools_of = tools_of
        self._run_agent = run_agent
        self._clock = clock
        self._announce = announce
        self._left_behind: set[asyncio.Task[str]] = set()

    async def work(self, tenant: str, run_id: UUID, cancellation: Cancellation) -> None:
        """Bring the run to its end; returns at once when it has ended.

        Raises what leaves it owed: Conflict, Unavailable, Overloaded (of the store), CancelledError at shutdown, and
        when it was cancelled before it had the run.
        """
        hand = await self.take(tenant, run_id)
        if hand.run.has_ended:
            return
        try:
            await self._to_its_end(hand)
        except asyncio.CancelledError:
            if not cancellation.by:
                raise
            cancellation.heard = True
            await hand.settle()
            if not hand.run.has_ended:  # else the save that was under way was its end
                hand.run.cancel(by=cancellation.by, cpu_seconds=hand.cpu_seconds, at=self._clock())
                await hand.save()
            cancellation.recorded = True

    async def take(self, tenant: str, run_id: UUID) -> RunInHand:
        """The run from its store; raises Absent."""
        store = self._stores.of(tenant)
        run = await store.load(Run, run_id)
        return RunInHand(tenant=tenant, run=run, store=store, clock=self._clock, announce=self._announce)

    async def _to_its_end(self, hand: RunInHand) -> None:
        run = hand.run
        if run.attempts >= MAX_ATTEMPTS:
            reason = f"it was taken up {run.attempts} times and did not come to an end"
            await self._fail(hand, {"code": "run.attempts_spent", "reason": reason}, 0.0)
            return
        run.start(at=self._clock())
        await hand.save()
        metered = hand.metered = CpuMetered(self._agent(hand))
        seconds = float(run.limits.get("seconds", 300.0))
        error: dict[str, Any]
        try:
            answer = await self._answer(metered, seconds)
        except TimeoutError:
            error = {"code": "run.out_of_time", "reason": f"it ran longer than the {seconds:g} s that its agent may"}
        except (RunError, Diverged) as fault:
            error = {"code": fault.code, "reason": str(fault)}
        except AgentFailed as fault:
            error = fault.error
        else:
            run.complete(answer=answer, cpu_seconds=metered.cpu_seconds, at=self._clock())
            await hand.save()
            return
        await self._fail(hand, error, metered.cpu_seconds)

    async def _answer(self, agent: CpuMetered[str], seconds: float) -> str:
        """What the agent gives within that time; raises what it raises, TimeoutError, and CancelledError."""
        task = asyncio.create_task(agent)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait([task])
        finally:
            if not task.done():
                self._left_behind.add(task)
                task.add_done_callback(self._ended_late)
                task.cancel()
                await asyncio.wait([task], timeout=TIDY_SECONDS)
        return task.result()

    def _ended_late(self, task: asyncio.Task[str]) -> None:
        self._left_behind.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: what it died of is the end that its run has already

    async def _agent(self, hand: RunInHand) -> str:
        try:
            return await self._run_agent(hand, self._tools_of(hand.tenant))
        except (RunError, Diverged, AgentFailed):
            raise
        except Refusal as refused:
            if hand.stale:
                raise  # the store refused: nothing can be recorded now, the run stays owed
            raise AgentFailed(refused.as_dict()["error"]) from None
        except Exception as fault:
            if hand.stale:
                raise
            structlog.get_logger().exception("run.failed", run=hand.run.run_id, tenant=hand.tenant)
            reason = f"an unexpected fault ({type(fault).__name__}): it is in the log"
            raise AgentFailed({"code": "internal", "reason": reason}) from None

    async def _fail(self, hand: RunInHand, error: dict[str, Any], cpu_seconds: float) -> None:
        await hand.settle()
        shaped = {"code": error["code"], "reason": error["reason"], "decision_id": error.get("decision_id")}
        hand.run.fail(error=shaped, cpu_seconds=cpu_seconds, at=self._clock())
        await hand.save()
