"""Governed tool calls as the runtime makes them: its own gate, store, key and tool host, against the real services."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import msgspec

from remit_agent_runtime.domain import Run
from remit_agent_runtime.fairness import FairGate
from remit_agent_runtime.inhand import RunInHand
from remit_agent_runtime.settings import AgentRuntimeSettings
from remit_agent_runtime.tool_gate import ToolGate
from remit_agent_runtime.tool_host_client import ToolHostClient
from remit_agent_runtime.toolhost.catalog import Catalog, ToolDescriptor
from remit_bench.seeding import CONNECTION, TENANT, TOOL
from remit_chassis.eventstore.store import EventStore
from remit_chassis.service import Service

CALLS_A_RUN = 20
"""An agent's limit, unless its definition says otherwise."""
AGENT = {"name": "bench", "limits": {"model_calls": 1, "tool_calls": CALLS_A_RUN, "seconds": 300.0}}


class Runtime:
    """An agent runtime without queue and agents: what stands between a call and its tool."""

    def __init__(self, settings: AgentRuntimeSettings) -> None:
        self.service = Service("agent-runtime", settings)
        self._host = ToolHostClient(
            home=settings.home,
            key_file=settings.tool_host_key_file,
            permit_public_key_file=settings.permit_public_key_file,
            broker_public_key_file=settings.broker_public_key_file,
            threads=settings.tool_host_threads,
        )
        turns = FairGate(
            in_flight=settings.tool_calls_at_once,
            in_flight_per_user=settings.tool_calls_at_once_per_user,
            waiting=settings.tool_calls_waiting,
            waiting_per_user=settings.tool_calls_waiting_per_user,
            what="tool calls",
        )
        self.gate = ToolGate(ask=self.service.ask, host=self._host, turns=turns)
        self.tool = leased_function(settings.home)
        self.service.on_start(self._host.start)
        self.service.on_stop(self._host.close)

    def agent_loop(self, user: str) -> AgentLoop:
        """A loop of that user."""
        return AgentLoop(self.gate, self.service.stores.of(TENANT), self.tool, user, self.service.clock)


def leased_function(home: Path) -> ToolDescriptor:
    """The shipped function as a tool that needs a credential.

    Functions take none, so the tool host passes over the lease: everything is in it but opening the lease and the
    request to somebody's server, which would be the server's number.
    """
    (found,) = (tool for tool in Catalog(home).descriptors(TENANT) if tool.id == TOOL)
    return msgspec.structs.replace(found, connection=CONNECTION, scopes=("conditions.read",))


class AgentLoop:
    """One call after the other, `CALLS_A_RUN` in a run."""

    def __init__(
        self, gate: ToolGate, store: EventStore, tool: ToolDescriptor, user: str, clock: Callable[[], datetime]
    ) -> None:
        self._gate = gate
        self._store = store
        self._tool = tool
        self._user = user
        self._clock = clock
        self._hand: RunInHand | None = None
        self._calls = 0
        self.failed = 0
        """Calls that were refused or had no known outcome: an overloaded service refuses."""

    async def call(self) -> float:
        """Make the next call; returns its seconds, without those of opening a run before it and closing one."""
        if self._hand is None or self._hand.tool_calls_made == CALLS_A_RUN:
            await self._next_run()
        assert self._hand is not None
        self._calls += 1
        began = time.perf_counter()
        returned = await self._gate.call(self._hand, self._tool, {"miles": float(self._calls)})
        took = time.perf_counter() - began
        self.failed += returned.outcome != "completed"
        return took

    async def _next_run(self) -> None:
        if self._hand is not None:
            self._hand.run.complete(answer="measured", cpu_seconds=0.0, at=self._clock())
            await self._hand.save()
        run = Run.accept(
            run_id=uuid4(),
            user=self._user,
            session="bench",
            conversation="",
            prompt="How far is that in kilometres?",
            idempotency_key="",
            agent=AGENT,
            bindings={"tools": {self._tool.id: self._tool.digest}},
            decision={},
            at=self._clock(),
        )
        run.start(at=self._clock())
        self._hand = RunInHand(tenant=TENANT, run=run, store=self._store, clock=self._clock)
        await self._hand.save()


async def repeat(
    step: Callable[[], Awaitable[float]], seconds: float, *, samples: list[float], think_seconds: float = 0.0
) -> None:
    """Closed loop: step after step for `seconds`; what each took is appended to `samples`."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        samples.append(await step())
        if think_seconds:
            await asyncio.sleep(think_seconds)
