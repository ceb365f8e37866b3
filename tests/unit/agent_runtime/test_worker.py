"""Runs from acceptance to their one end, with the real loop, the scripted model and the real store."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from unit.agent_runtime.world import TENANT, Tools, World, kinds, script

from remit_agent_runtime import facts
from remit_agent_runtime.tool_host_client import ToolCall, ToolOutcome
from remit_agent_runtime.worker import MAX_ATTEMPTS, Cancellation
from remit_contracts.errors import Conflict, Unavailable

SELECT = ("sql", {"sql": "SELECT 1"})


async def test_a_run_calls_its_tools_and_completes(world: World) -> None:
    run_id = await world.accept(script(SELECT, ("docs", {"query": "delays"}), answer="{results}"))
    await world.worker.work(TENANT, run_id, Cancellation())
    assert kinds(await world.events()) == [
        "Accepted", "Started",
        "ModelCalled", "ToolCallAuthorized", "ToolCallCompleted",
        "ModelCalled", "ToolCallAuthorized", "ToolCallCompleted",
        "ModelCalled", "Metered", "Completed",
    ]  # fmt: skip
    run = await world.load(run_id)
    assert run.answer.startswith("sql says so\n\ndocs says so")
    assert "no language model" in run.answer
    assert (run.usage.model_calls, run.usage.tool_calls) == (3, 2)
    assert run.usage.cpu_seconds > 0.5  # two tool calls of 0.25, and the worker's own
    assert run.usage.input_tokens > 0


async def test_progress_is_one_message_an_event_in_order_and_ends_with_the_end(world: World) -> None:
    run_id = await world.accept(script(SELECT))
    await world.worker.work(TENANT, run_id, Cancellation())
    assert [(said["type"], said.get("outcome") or said.get("status")) for said in world.messages] == [
        ("status", "running"),
        ("model", None),
        ("tool", "authorized"),
        ("tool", "completed"),
        ("text", None),
        ("end", "completed"),
    ]
    numbers = [said["seq"] for said in world.messages]
    assert numbers == sorted(set(numbers))


async def test_a_denied_tool_stops_the_run_with_the_decisions_id(world: World) -> None:
    world.services.denied["sql"] = "reader may not call sql"
    run_id = await world.accept(script(SELECT, answer="never"))
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert run.status == "failed"
    assert run.error == {"code": "policy.denied", "reason": "reader may not call sql", "decision_id": "d-1"}
    assert kinds(await world.events())[-3:] == ["ToolCallDenied", "Metered", "Failed"]


async def test_an_agent_that_is_told_of_a_denial_goes_on(world: World) -> None:
    world.services.denied["sql"] = "reader may not call sql"
    run_id = await world.accept(script(SELECT, ("docs", {"query": "delays"}), answer="{results}"), on_denied="tell")
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert run.status == "completed"
    assert "reader may not call sql" in run.answer
    assert "docs says so" in run.answer


async def test_a_tool_that_fails_is_told_to_the_model(world: World) -> None:
    world.host.answers["sql"] = ToolOutcome(ok=False, error={"code": "sql.refused", "reason": "only SELECT"})
    run_id = await world.accept(script(SELECT, answer="{result}"))
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert (run.status, "only SELECT" in run.answer) == ("completed", True)


async def test_a_spent_budget_ends_the_run(world: World) -> None:
    run_id = await world.accept(script(SELECT, SELECT), limits={"model_calls": 20, "tool_calls": 1, "seconds": 30})
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert run.error is not None
    assert run.error["code"] == "run.budget_spent"
    assert len(world.host.calls) == 1


async def test_a_run_that_takes_too_long_fails_with_its_call_unknown(world: World) -> None:
    world.host.hang()
    run_id = await world.accept(script(SELECT), limits={"model_calls": 5, "tool_calls": 5, "seconds": 0.2})
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert run.error is not None
    assert run.error["code"] == "run.out_of_time"
    assert kinds(await world.events())[-3:] == ["ToolCallUnknown", "Metered", "Failed"]


async def test_a_bug_in_a_tool_ends_the_run_without_showing_its_traceback(world: World) -> None:
    world.host.answers["sql"] = RuntimeError("secret detail")
    run_id = await world.accept(script(SELECT))
    with capture_logs() as logged:
        await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert run.error is not None
    assert run.error["code"] == "internal"
    assert "secret detail" not in run.error["reason"]
    assert [line["exc_info"] for line in logged] == [True]
    assert run.tool_calls[0].outcome == "unknown"


async def test_cancelling_ends_the_run_once_with_its_open_call_unknown(world: World) -> None:
    reached = world.host.hang()
    run_id = await world.accept(script(SELECT))
    cancellation = Cancellation()
    task = asyncio.create_task(world.worker.work(TENANT, run_id, cancellation))
    await reached.wait()
    cancellation.by = "u-boss"
    task.cancel()
    await task
    assert cancellation.recorded
    assert kinds(await world.events())[-3:] == ["ToolCallUnknown", "Metered", "Cancelled"]
    assert (await world.events())[-1].by == "u-boss"


async def test_a_shutdown_leaves_the_run_owed(world: World) -> None:
    reached = world.host.hang()
    run_id = await world.accept(script(SELECT))
    task = asyncio.create_task(world.worker.work(TENANT, run_id, Cancellation()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await world.load(run_id)).status == "running"


class Crash(BaseException):
    """Plays the end of the process: nothing after it runs."""


@pytest.mark.parametrize("crash_at", [1, 2, 3])
async def test_after_a_crash_in_a_tool_the_run_ends_and_no_call_was_made_twice(world: World, crash_at: int) -> None:
    """The tools' own ledger has each idempotency key once, and the call that was open is unknown."""
    ledger: list[str] = []

    def effect(call: ToolCall) -> ToolOutcome:
        ledger.append(call.idempotency_key)
        if len(ledger) == crash_at:
            raise Crash
        return ToolOutcome(ok=True, content=call.idempotency_key)

    world.host.answers["sql"] = effect
    run_id = await world.accept(script(SELECT, SELECT, SELECT, answer="{results}"))
    with pytest.raises(Crash):
        await world.worker.work(TENANT, run_id, Cancellation())
    asked_before = len(world.services.asked)
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert run.status == "completed"
    assert len(ledger) == len(set(ledger)) == 3
    assert [call.outcome for call in run.tool_calls].count("unknown") == 1
    assert run.tool_calls[crash_at - 1].outcome == "unknown"
    assert len(world.services.asked) - asked_before == 3 - crash_at
    ends = [name for name in kinds(await world.events()) if name in ("Completed", "Failed", "Cancelled")]
    assert ends == ["Completed"]


async def test_a_replay_whose_agent_asks_the_model_something_else_has_diverged(world: World) -> None:
    world.host.answers["sql"] = Crash()
    run_id = await world.accept(script(SELECT))
    with pytest.raises(Crash):
        await world.worker.work(TENANT, run_id, Cancellation())
    world.tools = {**world.tools, "sql": msgspec.structs.replace(world.tools["sql"], description="something else")}
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert run.error is not None
    assert run.error["code"] == "run.diverged"


async def test_a_tool_that_is_gone_since_acceptance_ends_the_run(world: World) -> None:
    run_id = await world.accept(script(SELECT))
    world.tools = {}
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert run.error is not None
    assert run.error["code"] == "tool.changed"


async def test_a_rival_process_cannot_make_a_second_call(world: World) -> None:
    """Two workers have the same run: the store lets one of them authorise, the other stops without an end."""
    run_id = await world.accept(script(SELECT, SELECT))
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def hold(call: ToolCall) -> ToolOutcome:
        waiting.set()
        await go_on.wait()
        return ToolOutcome(ok=True, content="late")

    world.host.answers["sql"] = hold
    first = asyncio.create_task(world.worker.work(TENANT, run_id, Cancellation()))
    await waiting.wait()
    world.host.answers["sql"] = ToolOutcome(ok=True, content="quick")
    await world.worker.work(TENANT, run_id, Cancellation())
    go_on.set()
    with pytest.raises(Conflict):
        await first
    keys = [call.idempotency_key for call in world.host.calls]
    assert len(keys) == len(set(keys))
    ends = [name for name in kinds(await world.events()) if name in ("Completed", "Failed", "Cancelled")]
    assert ends == ["Completed"]


async def test_a_run_that_ended_is_left_alone(world: World) -> None:
    run_id = await world.accept(script(SELECT))
    await world.worker.work(TENANT, run_id, Cancellation())
    before = len(await world.events())
    await world.worker.work(TENANT, run_id, Cancellation())
    assert len(await world.events()) == before


async def test_a_run_that_never_comes_to_an_end_is_ended(world: World) -> None:
    world.host.answers["sql"] = Crash()
    run_id = await world.accept(script(SELECT))
    for _ in range(MAX_ATTEMPTS):
        run = await world.load(run_id)
        run.start(at=world.clock())
        await world.store.save(run, user=run.user)
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert run.error is not None
    assert run.error["code"] == "run.attempts_spent"


async def test_a_store_that_cannot_be_written_leaves_the_run_owed_and_makes_no_call(world: World) -> None:
    run_id = await world.accept(script(SELECT))
    refused = asyncio.get_running_loop().create_future()
    refused.set_exception(Unavailable("the disk is full"))
    save_later = world.store.save_later
    broken = iter([False, False, True])

    def failing(aggregate: Any, *, user: str) -> Any:
        return refused if next(broken) else save_later(aggregate, user=user)

    world.store.save_later = failing  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await world.worker.work(TENANT, run_id, Cancellation())
    world.store.save_later = save_later  # type: ignore[method-assign]
    assert world.host.calls == []
    await world.worker.work(TENANT, run_id, Cancellation())
    assert (await world.load(run_id)).status == "completed"


async def test_a_model_that_names_an_unknown_tool_makes_no_call(world: World) -> None:
    run_id = await world.accept(script(("rm-rf", {}), answer="{result}"))
    await world.worker.work(TENANT, run_id, Cancellation())
    run = await world.load(run_id)
    assert run.has_ended
    assert world.host.calls == []
    assert not any(isinstance(event, facts.ToolCallAuthorized) for event in await world.events())


async def test_each_run_ends_once_however_many_run_at_a_time(world: World) -> None:
    ids = [await world.accept(script(SELECT), number=number) for number in range(1, 13)]
    await asyncio.gather(*(world.worker.work(TENANT, run_id, Cancellation()) for run_id in ids))
    assert all([(await world.load(run_id)).status == "completed" for run_id in ids])
    assert isinstance(world.host, Tools)
    assert len({call.idempotency_key for call in world.host.calls}) == 12
