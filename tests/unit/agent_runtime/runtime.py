"""All that stands behind the runtime's handlers, without a bus: the work queue stands in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

from unit.agent_runtime.world import DESK, DOCS, SQL, TENANT, USER, World, script

from remit_agent_runtime.agents import AgentFolder
from remit_agent_runtime.application import Runs
from remit_agent_runtime.fairness import FairGate
from remit_agent_runtime.models import Models
from remit_agent_runtime.queue import RunQueue
from remit_contracts.errors import Unavailable
from remit_contracts.identity import Caller
from remit_contracts.runs import StartRun

ME = Caller(TENANT, USER, "s-1")
PROMPT = script(("sql", {"sql": "SELECT 1"}))


class JobsInProcess:
    """The work queue without a bus: a job goes straight to the queue, unless that is `away` or the job `on_its_way`."""

    def __init__(self, queue: RunQueue) -> None:
        self.queue = queue
        self.away = False
        self.on_its_way = False
        self.published: list[UUID] = []

    async def publish(self, tenant: str, user: str, agent: str, run_id: UUID) -> None:
        if self.away:
            raise Unavailable("the work queue did not take the job")
        self.published.append(run_id)
        if not self.on_its_way:
            self.queue.put(tenant, user, run_id)


class Runtime:
    """Everything behind the handlers."""

    def __init__(
        self, world: World, home: Path, *, limit: int = 100, limit_per_user: int = 50, at_once: int = 4
    ) -> None:
        self.world = world
        self.queue = RunQueue(
            work=world.worker.work,
            turns=FairGate(in_flight=at_once, in_flight_per_user=at_once),
            limit=limit,
            limit_per_user=limit_per_user,
        )
        self.jobs = JobsInProcess(self.queue)
        agents = home / "agents" / TENANT
        agents.mkdir(parents=True, exist_ok=True)
        (agents / "analyst.yaml").write_text("name: analyst\nmodel: scripted\ntools: [sql, docs]\n")
        self.runs = Runs(
            stores=world,
            queue=self.queue,
            jobs=self.jobs,
            agents=AgentFolder(home / "agents"),
            catalog=self,
            models=Models({}),
            ask=world.services.ask,
            clock=world.clock,
            announce=world.note,
        )

    def descriptors(self, tenant: str) -> list[Any]:
        return [SQL, DOCS, DESK]

    async def start(self, prompt: str = PROMPT, *, caller: Caller = ME, agent: str = "analyst", **fields: Any) -> Any:
        return await self.runs.start(StartRun(agent=agent, prompt=prompt, **fields), caller)

    async def ended(self, run_id: str, caller: Caller = ME) -> Any:
        """The run's view once it has ended."""
        async with asyncio.timeout(20):
            while UUID(hex=run_id) in self.queue:
                await asyncio.sleep(0.005)
        return await self.runs.show(run_id, caller)
