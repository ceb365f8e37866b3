"""A user's list of runs says of each run what the run itself says."""

from __future__ import annotations

import pytest
from unit.agent_runtime.world import TENANT, USER, World

from remit_agent_runtime.projections import RunLists
from remit_agent_runtime.views import view_of


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_the_list_and_the_run_name_the_same_instants_whenever_they_were_recorded(world: World, end: str) -> None:
    run_id = await world.accept("question")
    run = await world.load(run_id)
    run.start(at=world.clock())
    ended_at = world.clock()
    if end == "completed":
        run.complete(answer="42", cpu_seconds=0.1, at=ended_at)
    elif end == "failed":
        run.fail(error={"code": "run.failed", "reason": "it broke", "decision_id": None}, cpu_seconds=0.1, at=ended_at)
    else:
        run.cancel(by=USER, cpu_seconds=0.1, at=ended_at)
    assert world.clock() > ended_at  # time goes on until it is stored
    await world.store.save(run, user=USER)
    (row,) = await RunLists().newest(world.store, TENANT, USER, 10)
    view = view_of(await world.load(run_id))
    assert (row.status, row.accepted_at, row.ended_at) == (end, view.accepted_at, ended_at)
    assert view.ended_at == ended_at
