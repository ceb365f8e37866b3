"""The agent runtime's process: everything is made here, and nothing elsewhere."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import partial

from remit_agent_runtime import handlers
from remit_agent_runtime.agents import AgentFolder
from remit_agent_runtime.application import Runs
from remit_agent_runtime.fairness import FairGate
from remit_agent_runtime.inhand import RunInHand
from remit_agent_runtime.jobs import Jobs
from remit_agent_runtime.live import announcing
from remit_agent_runtime.models import Models
from remit_agent_runtime.queue import RunQueue
from remit_agent_runtime.settings import AgentRuntimeSettings
from remit_agent_runtime.sweep import Sweep
from remit_agent_runtime.tool_gate import ToolGate
from remit_agent_runtime.tool_host_client import ToolHostClient
from remit_agent_runtime.toolhost.catalog import Catalog, ToolDescriptor
from remit_agent_runtime.worker import Worker
from remit_chassis.eventstore.store import EventStore
from remit_chassis.keyring import UserKeys
from remit_chassis.service import Service
from remit_chassis.streams import require_stream
from remit_contracts.subjects import RUNS_STREAM

DRAIN_SECONDS = 5.0
"""How long a stop waits for tool calls on their way; `remit up` kills after 10 s."""


class LateStores:
    """The service's stores, which are there once it has started."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def of(self, tenant: str) -> EventStore:
        """The tenant's store."""
        return self._service.stores.of(tenant)


def build(settings: AgentRuntimeSettings, *, user_keys: UserKeys | None = None) -> Service:
    """The service, with all that it starts and stops. Users' keys come from the credential broker unless given."""
    service = Service("agent-runtime", settings, user_keys=user_keys)
    host = ToolHostClient(
        home=settings.home,
        key_file=settings.tool_host_key_file,
        permit_public_key_file=settings.permit_public_key_file,
        broker_public_key_file=settings.broker_public_key_file,
        threads=settings.tool_host_threads,
    )
    catalog = Catalog(settings.home)
    tool_turns = FairGate(
        in_flight=settings.tool_calls_at_once,
        in_flight_per_user=settings.tool_calls_at_once_per_user,
        waiting=settings.tool_calls_waiting,
        waiting_per_user=settings.tool_calls_waiting_per_user,
        what="tool calls",
    )
    gate = ToolGate(ask=service.ask, host=host, turns=tool_turns)
    announce = announcing(service.publish_live)

    async def run_agent(hand: RunInHand, tools: Mapping[str, ToolDescriptor]) -> str:
        from remit_agent_runtime.loop import run_agent  # pydantic-ai: 0.7 s of CPU, after readiness

        return await run_agent(hand, gate=gate, tools=tools)

    worker = Worker(
        stores=LateStores(service),
        tools_of=lambda tenant: {tool.id: tool for tool in catalog.descriptors(tenant)},
        run_agent=run_agent,
        clock=service.clock,
        announce=announce,
    )
    queue = RunQueue(
        work=worker.work,
        turns=FairGate(in_flight=settings.runs_at_once, in_flight_per_user=settings.runs_at_once_per_user, what="runs"),
        limit=settings.runs_in_hand,
        limit_per_user=settings.runs_in_hand_per_user,
    )
    jobs = Jobs(nc=lambda: service.nc, queue=queue, limit=settings.runs_in_hand)
    runs = Runs(
        stores=LateStores(service),
        queue=queue,
        jobs=jobs,
        agents=AgentFolder(settings.home / "agents"),
        catalog=catalog,
        models=Models(os.environ, default_model=settings.default_model),
        ask=service.ask,
        clock=service.clock,
        announce=announce,
    )
    handlers.register(service, runs)
    _live(service, host, gate, queue, jobs, Sweep(stores=lambda: service.stores, queue=queue, clock=service.clock))
    return service


def _live(service: Service, host: ToolHostClient, gate: ToolGate, queue: RunQueue, jobs: Jobs, sweep: Sweep) -> None:
    """What starts and stops with the service, and what its readiness depends on."""

    async def work_queue_is_fit() -> str:
        await require_stream(service.nc, RUNS_STREAM)
        return "the stream is as it must be"

    async def load_agent_loop() -> None:
        await asyncio.to_thread(partial(__import__, "remit_agent_runtime.loop"))

    async def begin_work() -> None:
        service.spawn(load_agent_loop())
        service.spawn(sweep.forever())
        service.spawn(jobs.consume())
        service.spawn(jobs.keep())

    service.check("tool-host", host.check)
    service.check("work-queue", work_queue_is_fit)
    service.on_start(host.start)
    service.on_ready(begin_work)
    service.on_stop(host.close)
    service.on_stop(queue.close)
    service.on_stop(partial(gate.drain, DRAIN_SECONDS))
    service.on_stop(jobs.close)  # hooks end in reverse: first what brings work, then open calls, the work, its tools


def main() -> None:
    """Entry point `agent-runtime` of the group `remit.services`."""
    build(AgentRuntimeSettings()).run()


if __name__ == "__main__":
    main()
