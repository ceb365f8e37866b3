"""The governed tool call: what is on disk before and after, and what can stop it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from unit.agent_runtime.world import DESK, SQL, TENANT, USER, World, kinds

from remit_agent_runtime import facts, patience
from remit_agent_runtime.domain import BudgetSpent
from remit_agent_runtime.fairness import FairGate
from remit_agent_runtime.model_gate import Diverged
from remit_agent_runtime.tool_gate import NEW_DECISIONS, ToolChanged, ToolGate
from remit_agent_runtime.tool_host_client import ToolCall, ToolHostLost, ToolOutcome
from remit_contracts.errors import Conflict, Denied, MalformedCommand, Refusal, Unavailable
from remit_contracts.permits import args_digest

ARGUMENTS = {"sql": "SELECT 1"}


async def test_the_authorisation_is_on_disk_before_the_tool_is_called(world: World) -> None:
    hand = await world.hand()
    on_disk: list[str] = []

    async def look(call: ToolCall) -> ToolOutcome:
        on_disk.extend(kinds(await world.events()))
        return ToolOutcome(ok=True, content="1")

    world.host.answers["sql"] = look
    returned = await world.gate.call(hand, SQL, ARGUMENTS)
    assert on_disk[-1] == "ToolCallAuthorized"
    assert (returned.outcome, returned.content) == ("completed", "1")
    assert kinds(await world.events())[-2:] == ["ToolCallAuthorized", "ToolCallCompleted"]


async def test_the_authorisation_holds_the_whole_decision_and_what_was_decided_on(world: World) -> None:
    hand = await world.hand()
    await world.gate.call(hand, SQL, ARGUMENTS)
    event = (await world.events())[-2]
    assert isinstance(event, facts.ToolCallAuthorized)
    assert event.decision == {
        "decision_id": "d-1",
        "decision": True,
        "reasons": [],
        "obligations": [{"type": "max_rows", "properties": {"limit": 5}}],
        "bundle_digest": "b" * 64,
        "data_revision": "r1",
        "evaluated_at": "2026-01-31T09:30:00Z",
        "input": '{"action":"tool.call"}',
    }
    assert (event.arguments, event.args_digest, event.permit) == (ARGUMENTS, args_digest(ARGUMENTS), "permit-1")
    request = world.services.asked[0][1]
    assert (request.subject.id, request.resource.id, request.resource.properties) == (
        USER,
        "sql",
        {"tenant": TENANT, "data_sources": ["sql"]},
    )
    assert (request.context.run, request.context.ordinal, request.context.session, request.context.args_digest) == (
        hand.run.run_id,
        1,
        "s-1",
        args_digest(ARGUMENTS),
    )


async def test_the_tool_gets_the_permit_and_the_key_under_which_it_happens_once(world: World) -> None:
    hand = await world.hand()
    await world.gate.call(hand, SQL, ARGUMENTS)
    await world.gate.call(hand, SQL, ARGUMENTS)
    assert [(call.permit, call.idempotency_key) for call in world.host.calls] == [
        ("permit-1", f"{hand.run.run_id}:1"),
        ("permit-2", f"{hand.run.run_id}:2"),
    ]


async def test_a_denied_call_reaches_no_tool_and_no_broker(world: World) -> None:
    world.services.denied["weather-desk"] = "no role grants it"
    hand = await world.hand()
    returned = await world.gate.call(hand, DESK, {"airport": "JFK"})
    assert returned.outcome == "denied"
    assert returned.error == {"code": "policy.denied", "reason": "no role grants it", "decision_id": "d-1"}
    assert [verb for verb, _ in world.services.asked] == ["decide"]
    assert world.host.calls == []
    assert kinds(await world.events())[-1] == "ToolCallDenied"


async def test_without_an_answer_from_policy_there_is_no_call(world: World) -> None:
    world.services.policy_is_silent = Unavailable("nobody answers policy.decide")
    hand = await world.hand()
    returned = await world.gate.call(hand, SQL, ARGUMENTS)
    assert (returned.outcome, returned.error and returned.error["code"]) == ("denied", "unavailable")
    assert world.host.calls == []


async def test_policy_is_asked_again_while_it_restarts(world: World) -> None:
    world.services.policy_is_silent = Unavailable("nobody answers policy.decide")

    def back_again(verb: str) -> None:
        if len(world.services.asked) > 1:
            world.services.policy_is_silent = None

    world.services.before_answer = back_again
    gate = ToolGate(ask=world.services.ask, host=world.host, turns=world.turns, patience_seconds=5.0)
    assert (await gate.call(await world.hand(), SQL, ARGUMENTS)).outcome == "completed"


@pytest.mark.parametrize("code", ["policy.directory_unavailable", "policy.engine_unreachable"])
async def test_policy_is_asked_again_while_what_it_needs_restarts(world: World, code: str) -> None:
    world.services.denied, world.services.denied_with = {"sql": "away"}, code

    def back_again(verb: str) -> None:
        if len(world.services.asked) > 2:
            world.services.denied = {}

    world.services.before_answer = back_again
    gate = ToolGate(ask=world.services.ask, host=world.host, turns=world.turns, patience_seconds=5.0)
    assert (await gate.call(await world.hand(), SQL, ARGUMENTS)).outcome == "completed"
    assert len(world.services.asked) == 3
    assert kinds(await world.events())[-2:] == ["ToolCallAuthorized", "ToolCallCompleted"]


async def test_patience_has_an_end_and_few_questions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.services.denied, world.services.denied_with = {"sql": "away"}, "policy.directory_unavailable"
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(patience.time, "monotonic", lambda: now)
    monkeypatch.setattr(patience.asyncio, "sleep", sleep)
    gate = ToolGate(ask=world.services.ask, host=world.host, turns=world.turns, patience_seconds=10.0)
    returned = await gate.call(await world.hand(), SQL, ARGUMENTS)
    assert returned.error == {"code": "policy.directory_unavailable", "reason": "away", "decision_id": "d-8"}
    assert 9 < now <= 10
    assert world.host.calls == []


async def test_a_denial_that_policy_decided_is_not_asked_again(world: World) -> None:
    world.services.denied = {"sql": "no role grants it"}
    gate = ToolGate(ask=world.services.ask, host=world.host, turns=world.turns, patience_seconds=5.0)
    assert (await gate.call(await world.hand(), SQL, ARGUMENTS)).outcome == "denied"
    assert len(world.services.asked) == 1


def too_early(world: World, *times: int) -> None:
    """The tool host is younger than the permits of these calls, counted from 1."""

    def answer(call: ToolCall) -> ToolOutcome:
        if len(world.host.calls) in times:
            return ToolOutcome(ok=False, error={"code": "permit.before_start", "reason": "ask for a new decision"})
        return ToolOutcome(ok=True, content=call.idempotency_key)

    world.host.answers["sql"] = answer


async def test_a_permit_older_than_the_tool_host_is_a_failure_on_record_and_the_call_is_decided_anew(
    world: World,
) -> None:
    too_early(world, 1)
    hand = await world.hand()
    returned = await world.gate.call(hand, SQL, ARGUMENTS)
    assert (returned.outcome, returned.ordinal, returned.content) == ("completed", 2, f"{hand.run.run_id}:2")
    assert kinds(await world.events())[-4:] == ["ToolCallAuthorized", "ToolCallCompleted"] * 2
    assert [(call.permit, call.idempotency_key) for call in world.host.calls] == [
        ("permit-1", f"{hand.run.run_id}:1"),
        ("permit-2", f"{hand.run.run_id}:2"),
    ]
    assert [call.outcome for call in hand.run.tool_calls] == ["failed", "completed"]


async def test_a_replay_passes_over_what_came_too_early_as_the_run_did(world: World) -> None:
    too_early(world, 1, 2)
    hand = await world.hand()
    returned = await world.gate.call(hand, SQL, ARGUMENTS)
    again = await world.worker.take(TENANT, hand.run.id)
    world.host.calls.clear()
    assert await world.gate.call(again, SQL, ARGUMENTS) == returned
    assert world.host.calls == []
    assert again.tool_calls_made == 3


async def test_a_crash_before_the_new_decision_lets_the_replay_make_it(world: World) -> None:
    too_early(world, 1)
    hand = await world.hand(limits={"model_calls": 5, "tool_calls": 1, "seconds": 5})
    assert (await world.gate.call(hand, SQL, ARGUMENTS)).outcome == "failed"  # the budget has no other call
    again = await world.worker.take(TENANT, hand.run.id)
    again.run.agent["limits"]["tool_calls"] = 5
    assert (await world.gate.call(again, SQL, ARGUMENTS)).ordinal == 2


async def test_a_permit_that_always_comes_too_early_is_decided_anew_a_few_times_only(world: World) -> None:
    too_early(world, *range(1, 100))
    hand = await world.hand()
    returned = await world.gate.call(hand, SQL, ARGUMENTS)
    assert (returned.outcome, returned.error and returned.error["code"]) == ("failed", "permit.before_start")
    assert len(hand.run.tool_calls) == 1 + NEW_DECISIONS
    again = await world.worker.take(TENANT, hand.run.id)
    assert await world.gate.call(again, SQL, ARGUMENTS) == returned


async def test_a_lease_that_the_broker_refuses_for_its_restart_is_decided_anew(world: World) -> None:
    world.services.refuses_lease = Refusal("ask for a new decision", code="lease.permit_before_start")

    def once(verb: str) -> None:
        if [asked for asked, _ in world.services.asked].count("lease") > 1:
            world.services.refuses_lease = None

    world.services.before_answer = once
    hand = await world.hand()
    assert (await world.gate.call(hand, DESK, {"airport": "JFK"})).outcome == "completed"
    assert [call.idempotency_key for call in world.host.calls] == [f"{hand.run.run_id}:2"]


async def test_the_broker_is_asked_again_while_it_restarts(world: World) -> None:
    world.services.refuses_lease = Unavailable("nobody answers credential-broker.lease")

    def back_again(verb: str) -> None:
        if [asked for asked, _ in world.services.asked].count("lease") > 2:
            world.services.refuses_lease = None

    world.services.before_answer = back_again
    gate = ToolGate(ask=world.services.ask, host=world.host, turns=world.turns, patience_seconds=5.0)
    assert (await gate.call(await world.hand(), DESK, {"airport": "JFK"})).outcome == "completed"
    assert len(world.host.calls) == 1


async def test_a_call_that_waits_for_the_broker_to_be_back_holds_up_no_call_that_needs_none(world: World) -> None:
    world.services.refuses_lease = Unavailable("nobody answers credential-broker.lease")
    asked = asyncio.Event()
    world.services.before_answer = lambda verb: asked.set() if verb == "lease" else None
    turns = FairGate(in_flight=1, in_flight_per_user=1)
    gate = ToolGate(ask=world.services.ask, host=world.host, turns=turns, patience_seconds=5.0)
    waiting = asyncio.create_task(gate.call(await world.hand(), DESK, {"airport": "JFK"}))
    await asked.wait()
    for number, user in enumerate(("u-other", USER), 2):
        hand = await world.hand(user=user, number=number)
        assert (await gate.call(hand, SQL, ARGUMENTS)).outcome == "completed"
    assert not waiting.done()
    world.services.refuses_lease = None
    assert (await waiting).outcome == "completed"
    assert (turns.in_flight, turns.waiting) == (0, 0)


async def test_a_call_that_has_its_lease_at_last_waits_for_its_turn(world: World) -> None:
    world.services.refuses_lease = Unavailable("nobody answers credential-broker.lease")
    turns = FairGate(in_flight=1, in_flight_per_user=1)
    gate = ToolGate(ask=world.services.ask, host=world.host, turns=turns, patience_seconds=5.0)
    asked = asyncio.Event()
    world.services.before_answer = lambda verb: asked.set() if verb == "lease" else None
    waiting = asyncio.create_task(gate.call(await world.hand(), DESK, {"airport": "JFK"}))
    await asked.wait()
    await turns.enter("another")
    world.services.refuses_lease = None
    async with asyncio.timeout(5):
        while not turns.waiting:
            await asyncio.sleep(0.005)
    assert (world.host.calls, turns.in_flight) == ([], 1)
    turns.leave("another")
    assert (await waiting).outcome == "completed"


async def test_an_allowed_decision_without_a_permit_is_no_permission(world: World) -> None:
    hand = await world.hand()
    decide = world.services._decide

    def without_permit(request: Any) -> Any:
        import msgspec

        answer = decide(request)
        return msgspec.structs.replace(answer, context=msgspec.structs.replace(answer.context, permit=None))

    world.services._decide = without_permit  # type: ignore[method-assign]
    assert (await world.gate.call(hand, SQL, ARGUMENTS)).outcome == "denied"
    assert world.host.calls == []


async def test_a_tool_with_a_connection_is_called_only_with_its_lease(world: World) -> None:
    hand = await world.hand()
    await world.gate.call(hand, DESK, {"airport": "JFK"})
    lease = world.services.asked[1][1]
    assert (lease.permit, lease.tool, lease.connection) == ("permit-1", "weather-desk", "weather-desk")
    assert lease.run == hand.run.run_id
    assert world.host.calls[0].sealed_lease == "c2VhbGVk"
    completed = (await world.events())[-1]
    assert completed.lease_id == "l-1"


async def test_a_refused_lease_is_recorded_and_the_tool_is_not_called(world: World) -> None:
    world.services.refuses_lease = Denied("no such connection", code="connection.absent")
    hand = await world.hand()
    returned = await world.gate.call(hand, DESK, {"airport": "JFK"})
    assert (returned.outcome, returned.error and returned.error["code"]) == ("failed", "connection.absent")
    assert world.host.calls == []
    assert kinds(await world.events())[-2:] == ["ToolCallAuthorized", "ToolCallCompleted"]


async def test_when_the_authorisation_cannot_be_stored_nothing_happens(world: World) -> None:
    hand = await world.hand()
    rival = await world.worker.take(TENANT, hand.run.id)
    rival.run.start(at=world.clock())
    await rival.save()
    with pytest.raises(Conflict):
        await world.gate.call(hand, DESK, {"airport": "JFK"})
    assert world.host.calls == []
    assert hand.stale
    assert world.turns.in_flight == 0


async def test_a_lost_tool_host_leaves_the_outcome_unknown_and_the_run_may_go_on(world: World) -> None:
    world.host.answers["sql"] = ToolHostLost("the tool host ended with the call on its way")
    hand = await world.hand()
    returned = await world.gate.call(hand, SQL, ARGUMENTS)
    assert (returned.outcome, returned.error and returned.error["code"]) == ("unknown", "tool.outcome_unknown")
    world.host.answers["sql"] = ToolOutcome(ok=True, content="2")
    assert (await world.gate.call(hand, SQL, ARGUMENTS)).ordinal == 2


async def test_a_host_that_cannot_be_reached_is_a_failure_and_not_an_unknown(world: World) -> None:
    world.host.answers["sql"] = Unavailable("the tool host is being restarted and nothing was sent")
    hand = await world.hand()
    assert (await world.gate.call(hand, SQL, ARGUMENTS)).outcome == "failed"


async def test_what_obligations_kept_back_is_recorded(world: World) -> None:
    world.host.answers["sql"] = ToolOutcome(
        ok=True, content={"rows": []}, withheld={"fields": ["tailnum"], "rows_cut": 3}
    )
    hand = await world.hand()
    returned = await world.gate.call(hand, SQL, ARGUMENTS)
    assert returned.withheld == {"fields": ["tailnum"], "rows_cut": 3}
    assert (await world.events())[-1].withheld == returned.withheld


async def test_a_replay_is_answered_from_the_journal_and_calls_nothing(world: World) -> None:
    hand = await world.hand()
    first = await world.gate.call(hand, SQL, ARGUMENTS)
    again = await world.worker.take(TENANT, hand.run.id)
    world.services.asked.clear()
    world.host.calls.clear()
    assert await world.gate.call(again, SQL, ARGUMENTS) == first
    assert (world.services.asked, world.host.calls) == ([], [])


@pytest.mark.parametrize(("tool", "arguments"), [(SQL, {"sql": "SELECT 2"}), (DESK, ARGUMENTS)])
async def test_a_replay_that_asks_something_else_has_diverged(world: World, tool: Any, arguments: Any) -> None:
    hand = await world.hand()
    await world.gate.call(hand, SQL, ARGUMENTS)
    again = await world.worker.take(TENANT, hand.run.id)
    with pytest.raises(Diverged):
        await world.gate.call(again, tool, arguments)


async def test_a_tool_that_changed_since_acceptance_is_not_called(world: World) -> None:
    hand = await world.hand()
    hand.run.bindings["tools"]["sql"] = "another digest"
    with pytest.raises(ToolChanged):
        await world.gate.call(hand, SQL, ARGUMENTS)
    assert world.host.calls == []


async def test_the_budget_is_looked_at_before_policy_is_asked(world: World) -> None:
    hand = await world.hand(limits={"model_calls": 5, "tool_calls": 0, "seconds": 5})
    with pytest.raises(BudgetSpent):
        await world.gate.call(hand, SQL, ARGUMENTS)
    assert world.services.asked == []


async def test_arguments_that_are_no_plain_json_are_refused(world: World) -> None:
    hand = await world.hand()
    with pytest.raises(MalformedCommand):
        await world.gate.call(hand, SQL, {"sql": float("nan")})


async def test_a_cancelled_call_gives_its_turn_back_and_stays_open(world: World) -> None:
    hand = await world.hand()
    reached = world.host.hang()
    task = asyncio.create_task(world.gate.call(hand, SQL, ARGUMENTS))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.turns.in_flight == 0
    assert hand.run.open_call == 1
