"""The commands of the agent runtime, each answered by one use case."""

from __future__ import annotations

from remit_agent_runtime.application import Runs
from remit_chassis.service import Service
from remit_contracts.identity import Caller
from remit_contracts.runs import (
    AgentsListed,
    CancelRun,
    ListAgents,
    ListRuns,
    RunsListed,
    RunStarted,
    RunView,
    ShowRun,
    StartRun,
)

MAX_START_BYTES = 160 * 1024
"""A prompt of 32,000 characters may take four bytes for each, and more as JSON escapes."""


def register(service: Service, runs: Runs) -> None:
    """Answer `remit.*.*.cmd.agent-runtime.>`."""

    @service.command("start-run", StartRun, max_bytes=MAX_START_BYTES)
    async def start_run(command: StartRun, caller: Caller) -> RunStarted:
        return await runs.start(command, caller)

    @service.command("cancel-run", CancelRun)
    async def cancel_run(command: CancelRun, caller: Caller) -> RunStarted:
        return await runs.cancel(command.run_id, caller)

    @service.command("show-run", ShowRun)
    async def show_run(command: ShowRun, caller: Caller) -> RunView:
        return await runs.show(command.run_id, caller)

    @service.command("list-runs", ListRuns)
    async def list_runs(command: ListRuns, caller: Caller) -> RunsListed:
        return await runs.list_own(caller, command.limit)

    @service.command("list-agents", ListAgents)
    async def list_agents(command: ListAgents, caller: Caller) -> AgentsListed:
        return await runs.list_agents(caller)
