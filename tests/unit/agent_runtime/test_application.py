"""What users ask of runs, over the real store, queue, worker and loop; the work queue stands in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
from unit.agent_runtime.runtime import ME, PROMPT, Runtime
from unit.agent_runtime.world import DOCS, SQL, TENANT, USER, World, kinds

from remit_agent_runtime.agents import AgentInvalid
from remit_agent_runtime.sweep import Sweep
from remit_agent_runtime.tool_host_client import ToolOutcome
from remit_agent_runtime.worker import Cancellation
from remit_contracts.decisions import UNDECIDED
from remit_contracts.errors import Absent, Conflict, Denied, Overloaded, Unavailable
from remit_contracts.identity import Caller

OTHER = Caller(TENANT, "u-other", "s-2")


async def test_an_accepted_run_is_on_disk_with_its_decision_and_bindings_before_the_answer(runtime: Runtime) -> None:
    runtime.world.host.hang()
    started = await runtime.start()
    accepted = (await runtime.world.events())[0]
    assert (started.status, accepted.originator_id.hex) == ("accepted", started.run_id)
    assert accepted.decision["decision_id"] == "d-1"
    assert accepted.bindings["tools"] == {"sql": SQL.digest, "docs": DOCS.digest}
    assert accepted.bindings["model"] == "scripted"
    assert len(accepted.bindings["agent_digest"]) == 64
    assert accepted.agent["tools"] == ["sql", "docs"]
    assert (accepted.user, accepted.session) == (USER, "s-1")


async def test_a_run_completes_and_its_view_shows_each_step(runtime: Runtime) -> None:
    runtime.world.host.answers["sql"] = ToolOutcome(
        ok=True,
        content={"columns": ["n"], "rows": [[3]]},
        withheld={"fields": ["tailnum"], "rows_cut": 2},
        cpu_seconds=0.5,
    )
    view = await runtime.ended((await runtime.start()).run_id)
    assert (view.status, view.error) == ("completed", None)
    assert view.answer.startswith("done: n\n-\n3")
    assert [(step.type, step.outcome) for step in view.steps] == [
        ("model", "answered"),
        ("tool", "completed"),
        ("model", "answered"),
    ]
    assert view.withheld == {"sql": {"fields": ["tailnum"], "rows_cut": 2}}
    assert (view.usage.model_calls, view.usage.tool_calls) == (2, 1)
    assert b"permit" not in view.to_bytes()


async def test_a_denied_invocation_is_denied_whether_or_not_the_agent_exists(runtime: Runtime) -> None:
    runtime.world.services.denied = {"analyst": "no", "nobody": "no"}
    answers = []
    for agent in ("analyst", "nobody"):
        with pytest.raises(Denied) as refused:
            await runtime.start(agent=agent)
        answers.append((refused.value.refusal_code, refused.value.reason))
        assert refused.value.decision_id
    assert answers[0] == answers[1]
    assert await runtime.world.events() == []
    assert len(runtime.queue) == 0


@pytest.mark.parametrize("code", ["policy.directory_unavailable", "policy.engine_unreachable"])
async def test_a_new_run_waits_while_what_policy_needs_restarts(runtime: Runtime, code: str) -> None:
    services = runtime.world.services
    services.denied, services.denied_with = {"analyst": "away"}, code

    def back_again(verb: str) -> None:
        if len(services.asked) > 2:
            services.denied = {}

    services.before_answer = back_again
    assert (await runtime.start()).status == "accepted"
    assert (await runtime.world.events())[0].decision["decision_id"] == "d-3"


async def test_a_new_run_is_refused_when_nobody_comes_back_to_decide(runtime: Runtime) -> None:
    services = runtime.world.services
    services.denied, services.denied_with = {"analyst": "away"}, "policy.directory_unavailable"
    runtime.runs._patience_seconds = 0.3
    with pytest.raises(Denied) as refused:
        await runtime.start()
    assert refused.value.refusal_code == "policy.directory_unavailable"
    assert (len(services.asked), len(runtime.queue), await runtime.world.events()) == (2, 0, [])


async def test_an_agent_that_is_not_there_is_absent_and_leaves_nothing(runtime: Runtime) -> None:
    with pytest.raises(Absent):
        await runtime.start(agent="nobody")
    assert (len(runtime.queue), await runtime.world.events()) == (0, [])


async def test_an_agent_with_an_unknown_tool_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "agents" / TENANT / "broken.yaml").write_text("name: broken\ntools: [teleport]\n")
    with pytest.raises(AgentInvalid, match="teleport"):
        await runtime.start(agent="broken")
    assert len(runtime.queue) == 0


async def test_the_same_key_gives_the_same_run_and_another_request_is_a_conflict(runtime: Runtime) -> None:
    first = await runtime.start(idempotency_key="k")
    await runtime.ended(first.run_id)
    again = await runtime.start(idempotency_key="k")
    assert (again.run_id, again.status) == (first.run_id, "completed")
    for change in ({"prompt": "another"}, {"session": "s-9"}):
        with pytest.raises(Conflict) as refused:
            await runtime.start(**{"prompt": PROMPT, **change}, idempotency_key="k")
        assert refused.value.refusal_code == "conflict.idempotency_key"
    assert len(runtime.world.host.calls) == 1


async def test_the_same_key_sent_ten_times_at_once_is_one_run(runtime: Runtime) -> None:
    started = await asyncio.gather(*(runtime.start(idempotency_key="k") for _ in range(10)))
    assert len({answer.run_id for answer in started}) == 1
    await runtime.ended(started[0].run_id)
    assert kinds(await runtime.world.events()).count("Accepted") == 1
    assert len(runtime.world.host.calls) == 1
    assert len(runtime.queue) == 0


async def test_the_same_key_of_another_user_is_another_run(runtime: Runtime) -> None:
    mine = await runtime.start(idempotency_key="k")
    theirs = await runtime.start(idempotency_key="k", caller=OTHER)
    assert mine.run_id != theirs.run_id


async def test_a_full_queue_refuses_loudly_and_takes_runs_again_when_one_has_ended(
    world: World, tmp_path: Path
) -> None:
    runtime = Runtime(world, tmp_path, limit=3, limit_per_user=2)
    reached = world.host.hang()
    held = [await runtime.start() for _ in range(2)]
    with pytest.raises(Overloaded, match="2 of your runs") as refused:
        await runtime.start()
    assert refused.value.retry_after_seconds
    await runtime.start(caller=OTHER)
    with pytest.raises(Overloaded, match="3 runs are waiting or running"):
        await runtime.start(caller=Caller(TENANT, "u-third", "s"))
    await reached.wait()
    for each in held:
        await runtime.runs.cancel(each.run_id, ME)
    assert (await runtime.start()).status == "accepted"
    await runtime.queue.close()


async def test_a_run_is_worked_on_even_when_the_work_queue_is_away(runtime: Runtime) -> None:
    runtime.jobs.away = True
    view = await runtime.ended((await runtime.start()).run_id)
    assert view.status == "completed"


async def test_another_users_run_is_absent_without_a_permission_and_visible_with_it(runtime: Runtime) -> None:
    started = await runtime.start()
    await runtime.ended(started.run_id)
    runtime.world.services.denied = {started.run_id: "no"}
    refusals = []
    for run_id in (started.run_id, "0" * 31 + "1"):
        with pytest.raises(Absent) as refused:
            await runtime.runs.show(run_id, OTHER)
        refusals.append(refused.value.reason.replace(run_id, "ID"))
        with pytest.raises(Absent):
            await runtime.runs.cancel(run_id, OTHER)
    assert refusals[0] == refusals[1]
    runtime.world.services.denied = {}
    assert (await runtime.runs.show(started.run_id, OTHER)).run_id == started.run_id


async def test_cancelling_a_running_run_ends_it_once(runtime: Runtime) -> None:
    reached = runtime.world.host.hang()
    started = await runtime.start()
    await reached.wait()
    cancelled = await runtime.runs.cancel(started.run_id, ME)
    again = await runtime.runs.cancel(started.run_id, ME)
    assert (cancelled.status, again.status) == ("cancelled", "cancelled")
    assert kinds(await runtime.world.events())[-3:] == ["ToolCallUnknown", "Metered", "Cancelled"]
    assert len(runtime.queue) == 0


async def test_cancelling_a_run_that_waits_for_its_turn_ends_it(world: World, tmp_path: Path) -> None:
    runtime = Runtime(world, tmp_path, at_once=1)
    reached = world.host.hang()
    first = await runtime.start()
    await reached.wait()
    second = await runtime.start()
    assert (await runtime.runs.cancel(second.run_id, ME)).status == "cancelled"
    assert (await runtime.runs.show(first.run_id, ME)).status == "running"
    await runtime.queue.close()


async def test_the_list_is_ones_own_newest_first_and_up_to_date(runtime: Runtime) -> None:
    first = await runtime.start()
    await runtime.ended(first.run_id)
    second = await runtime.start()
    await runtime.ended(second.run_id)
    await runtime.start(caller=OTHER)
    rows = (await runtime.runs.list_own(ME, 100)).runs
    assert [(row.run_id, row.status, row.agent) for row in rows] == [
        (second.run_id, "completed", "analyst"),
        (first.run_id, "completed", "analyst"),
    ]
    assert rows[0].ended_at is not None
    newest = await runtime.runs.list_own(ME, 1)
    assert (len(newest.runs), newest.more) == (1, True)
    assert not (await runtime.runs.list_own(ME, 2)).more
    runtime.world.host.hang()
    third = await runtime.start()
    assert (await runtime.runs.list_own(ME, 1)).runs[0].run_id == third.run_id


async def test_the_list_rebuilt_from_the_events_is_the_list_kept(runtime: Runtime, tmp_path: Path) -> None:
    for _ in range(3):
        await runtime.ended((await runtime.start()).run_id)
        await runtime.runs.list_own(ME, 100)
    rebuilt = Runtime(runtime.world, tmp_path)
    assert await rebuilt.runs.list_own(ME, 100) == await runtime.runs.list_own(ME, 100)


async def test_agents_that_one_may_not_invoke_or_that_are_broken_are_not_listed(
    runtime: Runtime, tmp_path: Path
) -> None:
    folder = tmp_path / "agents" / TENANT
    (folder / "secret.yaml").write_text("name: secret\n")
    (folder / "broken.yaml").write_text("name: broken\ncolour: red\n")
    runtime.world.services.denied = {"secret": "no"}
    listed = (await runtime.runs.list_agents(ME)).agents
    assert [(row.name, row.model, row.tools) for row in listed] == [("analyst", "scripted", ("sql", "docs"))]


@pytest.mark.parametrize("code", sorted(UNDECIDED))
async def test_agents_are_not_listed_at_all_while_nobody_can_decide_about_one_of_them(
    runtime: Runtime, tmp_path: Path, code: str
) -> None:
    (tmp_path / "agents" / TENANT / "second.yaml").write_text("name: second\n")
    services = runtime.world.services
    services.denied, services.denied_with = {"second": "away"}, code
    with pytest.raises(Unavailable, match="away") as refused:
        await runtime.runs.list_agents(ME)
    assert (refused.value.refusal_code, refused.value.decision_id) == ("unavailable", "d-2")
    services.denied = {}
    assert [row.name for row in (await runtime.runs.list_agents(ME)).agents] == ["analyst", "second"]


async def test_the_sweep_takes_up_what_a_crash_left_and_nothing_else(runtime: Runtime, tmp_path: Path) -> None:
    world = runtime.world
    await runtime.ended((await runtime.start()).run_id)
    left = await world.accept(PROMPT, number=77)
    reached = world.host.hang()
    held = await runtime.start()
    await reached.wait()
    world.host.answers["sql"] = ToolOutcome(ok=True, content="1")
    sweep = Sweep(stores=lambda: world, queue=runtime.queue, clock=world.clock)  # type: ignore[arg-type,return-value]
    assert await sweep.once(quiet_seconds=0.0) == 1
    assert (await runtime.ended(left.hex)).status == "completed"
    assert await sweep.once(quiet_seconds=0.0) == 0
    assert UUID(hex=held.run_id) in runtime.queue


async def test_the_sweep_leaves_runs_that_something_happened_to_just_now(runtime: Runtime) -> None:
    world = runtime.world
    await world.accept(PROMPT, number=77)
    sweep = Sweep(stores=lambda: world, queue=runtime.queue, clock=world.clock)  # type: ignore[arg-type,return-value]
    assert await sweep.once(quiet_seconds=3600.0) == 0


class HeldJob:
    """A message of the work queue that notes what becomes of it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def ack(self) -> None:
        self.said.append("ack")

    async def in_progress(self) -> None:
        self.said.append("in progress")

    async def nak(self, delay: float) -> None:
        self.said.append("nak")


async def test_a_job_is_acknowledged_when_its_run_has_ended_and_not_before(runtime: Runtime) -> None:
    reached = runtime.world.host.hang()
    run_id = await runtime.world.accept(PROMPT, number=5)
    job, copy = HeldJob(), HeldJob()
    runtime.queue.put(TENANT, USER, run_id, job)
    runtime.queue.put(TENANT, USER, run_id, copy)
    await reached.wait()
    await runtime.queue.keep_jobs()
    assert (job.said, copy.said) == (["in progress"], ["in progress"])
    await runtime.queue.cancel(run_id, by=USER)
    assert (job.said, copy.said) == (["in progress", "ack"], ["in progress", "ack"])


async def test_a_job_whose_run_is_still_owed_comes_again(runtime: Runtime) -> None:
    run_id = await runtime.world.accept(PROMPT, number=5)

    async def fails(tenant: str, run_id: UUID, cancellation: Cancellation) -> None:
        raise Unavailable("the disk is full")

    runtime.queue._work = fails
    job = HeldJob()
    runtime.queue.put(TENANT, USER, run_id, job)
    await runtime.ended(run_id.hex)
    assert job.said == ["nak"]


async def test_a_job_that_names_no_run_is_taken_out(runtime: Runtime) -> None:
    job = HeldJob()
    runtime.queue.put(TENANT, USER, UUID(int=404), job)
    async with asyncio.timeout(5):
        while UUID(int=404) in runtime.queue or not job.said:
            await asyncio.sleep(0.005)
    assert job.said == ["ack"]


async def test_closing_keeps_jobs_unacknowledged_and_runs_owed(runtime: Runtime) -> None:
    reached = runtime.world.host.hang()
    run_id = await runtime.world.accept(PROMPT, number=5)
    job = HeldJob()
    runtime.queue.put(TENANT, USER, run_id, job)
    await reached.wait()
    await runtime.queue.close()
    assert job.said == []
    assert (await runtime.world.load(run_id)).status == "running"
