"""The process that loads a platform: `python -m remit_bench.driver SECONDS JOB...`, with the runtime's environment.

Its jobs are `one`, `many`, `fair` and `decide`; it prints `{job: [measurement of each pass]}` as JSON, in seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import orjson

from remit_agent_runtime.settings import AgentRuntimeSettings
from remit_bench import usage
from remit_bench.calls import AgentLoop, Runtime, repeat
from remit_bench.floor import FloorMeter, measuring
from remit_bench.rows import percentile
from remit_bench.seeding import LOOPS, TENANT, TOOL
from remit_chassis import logs
from remit_chassis.service import settle_memory
from remit_contracts.fast_decisions import DecisionAnswer, DecisionContext, ask
from remit_contracts.permits import args_digest

PASSES = 5
WARM_SECONDS = 1.0
THINK_SECONDS = 0.02
"""Between two calls of the quiet user."""

Measurement = dict[str, float]


class Driver:
    """Everything that the jobs need. `platform` is the process id of the platform's supervisor."""

    def __init__(self, runtime: Runtime, floor: FloorMeter, users: list[str], seconds: float, platform: int) -> None:
        *self.users, self.loud, self.quiet = users
        self.runtime = runtime
        self.floor = floor
        self.seconds = seconds
        self.processes = (platform, os.getpid())

    async def one(self) -> list[Measurement]:
        """One call in flight."""
        return await self._passes([self.runtime.agent_loop(self.users[0])])

    async def many(self) -> list[Measurement]:
        """64 in flight, each of another user."""
        return await self._passes([self.runtime.agent_loop(user) for user in self.users])

    async def fair(self) -> list[Measurement]:
        """The quiet user alone, then beside 64 loops of the loud one."""
        quiet = self.runtime.agent_loop(self.quiet)
        loud = [self.runtime.agent_loop(self.loud) for _ in range(LOOPS)]
        await self._load([quiet, *loud], WARM_SECONDS)
        measured = []
        for _ in range(PASSES):
            await usage.idle(self.processes)
            alone: list[float] = []
            beside: list[float] = []
            others: list[float] = []
            await repeat(quiet.call, self.seconds, samples=alone, think_seconds=THINK_SECONDS)
            await asyncio.gather(
                repeat(quiet.call, self.seconds, samples=beside, think_seconds=THINK_SECONDS),
                *(repeat(loop.call, self.seconds, samples=others) for loop in loud),
            )
            measured.append(
                {
                    "alone_p99": percentile(alone, 0.99),
                    "beside_p99": percentile(beside, 0.99),
                    "alone_p50": percentile(alone, 0.5),
                    "beside_p50": percentile(beside, 0.5),
                    "others_a_second": len(others) / self.seconds,
                }
            )
        return measured

    async def decide(self) -> list[Measurement]:
        """Decisions about tool calls, one in flight, each with its permit."""
        user, measured = self.users[0], []
        await repeat(lambda: self._decision(user), WARM_SECONDS, samples=[])
        for _ in range(PASSES):
            samples: list[float] = []
            floor = await self.floor.measure(1)
            await repeat(lambda: self._decision(user), self.seconds / 2, samples=samples)
            measured.append({"p50": percentile(samples, 0.5), "floor": floor.seconds})
        return measured

    async def _decision(self, user: str) -> float:
        request = ask(
            user=user,
            action="tool.call",
            resource_type="tool",
            resource_id=TOOL,
            tenant=TENANT,
            context=DecisionContext(
                run=uuid4().hex, ordinal=1, args_digest=args_digest({"miles": 1.0}), session="bench", agent="bench"
            ),
        ).to_bytes()
        began = time.perf_counter()
        answer = await self.runtime.service.ask(TENANT, user, "policy", "decide", request)
        took = time.perf_counter() - began
        DecisionAnswer.from_bytes(answer).required()
        return took

    async def _passes(self, loops: list[AgentLoop]) -> list[Measurement]:
        await self._load(loops, WARM_SECONDS)
        measured = []
        for _ in range(PASSES):
            await usage.idle(self.processes)
            before, failed = await self.floor.measure(len(loops)), sum(loop.failed for loop in loops)
            used = usage.cpu_seconds(self.processes)
            samples, seconds = await self._load(loops, self.seconds)
            await usage.idle(self.processes)  # relay, stream, ledger and read model follow: they belong to the call
            used = usage.cpu_seconds(self.processes) - used
            after = await self.floor.measure(len(loops))
            measured.append(
                {
                    "p50": percentile(samples, 0.5),
                    "p99": percentile(samples, 0.99),
                    "calls_a_second": len(samples) / seconds,
                    "cpu": used / len(samples),
                    "failed": sum(loop.failed for loop in loops) - failed,
                    "floor": (before.seconds + after.seconds) / 2,
                    "floor_calls_a_second": (before.calls_a_second + after.calls_a_second) / 2,
                }
            )
        return measured

    async def _load(self, loops: list[AgentLoop], seconds: float) -> tuple[list[float], float]:
        """What each call took, and how long it all lasted."""
        samples: list[float] = []
        began = time.perf_counter()
        await asyncio.gather(*(repeat(loop.call, seconds, samples=samples) for loop in loops))
        return samples, time.perf_counter() - began


async def drive(seconds: float, platform: int, jobs: list[str]) -> dict[str, Any]:
    """Start the runtime, do the jobs, drain."""
    settings = AgentRuntimeSettings()
    users: list[str] = orjson.loads((settings.home.parent / "users.json").read_bytes())
    runtime = Runtime(settings)
    await runtime.service.start()
    settle_memory()  # as a service does when it is ready
    try:
        async with measuring(settings.home, settings.nats_url) as floor:
            driver = Driver(runtime, floor, users, seconds, platform)
            known: dict[str, Callable[[], Awaitable[list[Measurement]]]] = {
                "one": driver.one,
                "many": driver.many,
                "fair": driver.fair,
                "decide": driver.decide,
            }
            return {job: await known[job]() for job in jobs}
    finally:
        await runtime.service.shut_down()


if __name__ == "__main__":
    logs.configure("agent-runtime", "warning")
    sys.stdout.buffer.write(orjson.dumps(asyncio.run(drive(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))))
