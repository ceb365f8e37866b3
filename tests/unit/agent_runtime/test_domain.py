"""Runs: given events, when a command, then events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from unit.agent_runtime.world import kinds, new_run

from remit_agent_runtime import facts
from remit_agent_runtime.domain import (
    BudgetSpent,
    NotAuthorized,
    OutOfOrder,
    Run,
    RunError,
    RunHasEnded,
    RunHasNotStarted,
)

AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def accepted(**agent: Any) -> Run:
    run = new_run("how many?", at=AT, **agent)
    run.collect_events()
    return run


def running(**agent: Any) -> Run:
    run = accepted(**agent)
    run.start(at=AT)
    run.collect_events()
    return run


def authorize(run: Run, ordinal: int) -> None:
    run.authorize_tool_call(
        ordinal=ordinal,
        tool="sql",
        arguments={"sql": "SELECT 1"},
        args_digest="aa",
        decision={"decision_id": f"d-{ordinal}"},
        permit="token",
        at=AT,
    )


def complete(run: Run, ordinal: int, **outcome: Any) -> None:
    said = {
        "ok": True,
        "result": "1",
        "error": None,
        "withheld": {},
        "lease_id": "",
        "cpu_seconds": 0.5,
        "wall_seconds": 1.0,
    }
    run.complete_tool_call(ordinal=ordinal, at=AT, **{**said, **outcome})


def deny(run: Run, ordinal: int) -> None:
    run.deny_tool_call(
        ordinal=ordinal,
        tool="sql",
        arguments={},
        args_digest="aa",
        decision_id="d-1",
        code="policy.no_grant",
        reason="no role grants it",
        at=AT,
    )


def call_model(run: Run, ordinal: int) -> None:
    run.record_model_call(
        ordinal=ordinal,
        model="scripted",
        request_hash="h",
        response={"parts": []},
        input_tokens=10,
        output_tokens=2,
        wall_seconds=0.1,
        at=AT,
    )


def test_a_started_run_is_running_and_counts_its_attempts() -> None:
    run = accepted()
    run.start(at=AT)
    assert kinds(run.collect_events()) == ["Started"]
    run.start(at=AT)
    assert (run.status, run.attempts) == ("running", 2)


def test_a_call_left_open_by_a_crash_becomes_unknown_when_the_run_starts_again() -> None:
    run = running()
    authorize(run, 1)
    run.collect_events()
    run.start(at=AT)
    assert kinds(run.collect_events()) == ["Started", "ToolCallUnknown"]
    assert run.tool_calls[0].outcome == "unknown"
    assert run.reserve_tool_call() == 2


def test_an_authorised_call_is_open_until_its_outcome() -> None:
    run = running()
    authorize(run, 1)
    assert run.open_call == 1
    complete(run, 1)
    assert run.open_call == 0
    assert (run.tool_calls[0].outcome, run.tool_calls[0].result) == ("completed", "1")


@pytest.mark.parametrize("ordinal", [0, 1, 3])
def test_a_tool_call_is_authorised_under_the_next_ordinal_only(ordinal: int) -> None:
    run = running()
    authorize(run, 1)
    complete(run, 1)
    with pytest.raises(OutOfOrder):
        authorize(run, ordinal)


def test_a_second_call_waits_for_the_first_ones_outcome() -> None:
    run = running()
    authorize(run, 1)
    with pytest.raises(OutOfOrder):
        run.reserve_tool_call()
    with pytest.raises(OutOfOrder):
        authorize(run, 2)


def test_an_outcome_needs_an_authorisation() -> None:
    with pytest.raises(NotAuthorized):
        complete(running(), 1)


def test_a_call_has_one_outcome() -> None:
    run = running()
    authorize(run, 1)
    complete(run, 1)
    with pytest.raises(NotAuthorized):
        complete(run, 1)
    with pytest.raises(NotAuthorized):
        run.lose_tool_call(ordinal=1, reason="gone", at=AT)


def test_a_denied_call_can_not_be_completed() -> None:
    run = running()
    deny(run, 1)
    with pytest.raises(NotAuthorized):
        complete(run, 1)
    assert run.tool_calls[0].error == {"code": "policy.no_grant", "reason": "no role grants it", "decision_id": "d-1"}


def test_the_agents_limits_are_kept() -> None:
    run = running(limits={"model_calls": 1, "tool_calls": 1, "seconds": 5})
    call_model(run, run.reserve_model_call())
    with pytest.raises(BudgetSpent, match=r"limits\.model_calls"):
        run.reserve_model_call()
    authorize(run, run.reserve_tool_call())
    complete(run, 1)
    with pytest.raises(BudgetSpent):
        run.reserve_tool_call()
    with pytest.raises(BudgetSpent):
        authorize(run, 2)


def test_calls_belong_to_started_runs() -> None:
    run = accepted()
    for command in (
        run.reserve_model_call,
        run.reserve_tool_call,
        lambda: authorize(run, 1),
        lambda: call_model(run, 1),
    ):
        with pytest.raises(RunHasNotStarted):
            command()


def test_a_run_that_completes_states_what_it_used() -> None:
    run = running()
    call_model(run, 1)
    authorize(run, 1)
    complete(run, 1)
    run.collect_events()
    run.complete(answer="42", cpu_seconds=0.25, at=AT + timedelta(seconds=3))
    metered, completed = run.collect_events()
    assert isinstance(metered, facts.Metered)
    assert isinstance(completed, facts.Completed)
    assert (metered.model_calls, metered.tool_calls, metered.input_tokens, metered.output_tokens) == (1, 1, 10, 2)
    assert (metered.cpu_seconds, metered.wall_seconds) == (0.75, 3.0)
    assert (run.status, run.answer, run.ended_at) == ("completed", "42", AT + timedelta(seconds=3))


def test_a_run_does_not_complete_with_a_call_open() -> None:
    run = running()
    authorize(run, 1)
    with pytest.raises(OutOfOrder):
        run.complete(answer="42", cpu_seconds=0.0, at=AT)


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_a_run_that_ends_early_says_that_its_open_call_is_unknown(end: str) -> None:
    run = running()
    authorize(run, 1)
    run.collect_events()
    if end == "fail":
        run.fail(error={"code": "run.out_of_time", "reason": "late", "decision_id": None}, cpu_seconds=0.0, at=AT)
    else:
        run.cancel(by="u-1", cpu_seconds=0.0, at=AT)
    assert kinds(run.collect_events()) == ["ToolCallUnknown", "Metered", "Failed" if end == "fail" else "Cancelled"]


def test_a_run_can_be_cancelled_before_it_starts() -> None:
    run = accepted()
    run.cancel(by="u-1", cpu_seconds=0.0, at=AT)
    assert kinds(run.collect_events()) == ["Metered", "Cancelled"]


def test_nothing_follows_the_end() -> None:
    run = running()
    run.complete(answer="42", cpu_seconds=0.0, at=AT)
    run.collect_events()
    for command in (
        lambda: run.start(at=AT),
        run.reserve_model_call,
        run.reserve_tool_call,
        lambda: authorize(run, 1),
        lambda: run.complete(answer="43", cpu_seconds=0.0, at=AT),
        lambda: run.fail(error={"code": "x", "reason": ""}, cpu_seconds=0.0, at=AT),
        lambda: run.cancel(by="u-1", cpu_seconds=0.0, at=AT),
    ):
        with pytest.raises(RunHasEnded):
            command()
    assert run.collect_events() == []


def test_every_event_states_a_topic_that_does_not_name_its_module() -> None:
    names = (
        "Accepted Started ModelCalled ToolCallAuthorized ToolCallDenied ToolCallCompleted ToolCallUnknown Metered "
        "Completed Failed Cancelled"
    )
    topics = {f"runtime.Run.{name}" for name in names.split()}
    stated = {
        fact.__dict__["TOPIC"]
        for fact in vars(facts).values()
        if isinstance(fact, type) and issubclass(fact, facts.RunEvent) and fact is not facts.RunEvent
    }
    assert stated == topics


class AnyOrder(RuleBasedStateMachine):
    """Whatever is asked in whatever order: refused, or a history that keeps the rules and replays to the same run."""

    def __init__(self) -> None:
        super().__init__()
        self.run = new_run("p", at=AT, limits={"model_calls": 5, "tool_calls": 5, "seconds": 5})
        self.history = list(self.run.collect_events())

    def attempt(self, command: Any) -> None:
        try:
            command()
        except RunError:
            assert self.run.pending_events == []
        self.history += self.run.collect_events()

    @rule()
    def start(self) -> None:
        self.attempt(lambda: self.run.start(at=AT))

    @rule(ordinal=st.integers(0, 6))
    def authorize(self, ordinal: int) -> None:
        self.attempt(lambda: authorize(self.run, ordinal))

    @precondition(lambda self: self.run.status == "running")
    @rule()
    def authorize_the_next(self) -> None:
        self.attempt(lambda: authorize(self.run, len(self.run.tool_calls) + 1))

    @rule(ordinal=st.integers(0, 6))
    def deny(self, ordinal: int) -> None:
        self.attempt(lambda: deny(self.run, ordinal))

    @rule(ordinal=st.integers(0, 6))
    def complete_call(self, ordinal: int) -> None:
        self.attempt(lambda: complete(self.run, ordinal))

    @precondition(lambda self: self.run.open_call)
    @rule()
    def complete_the_open_call(self) -> None:
        self.attempt(lambda: complete(self.run, self.run.open_call))

    @rule(ordinal=st.integers(0, 6))
    def lose(self, ordinal: int) -> None:
        self.attempt(lambda: self.run.lose_tool_call(ordinal=ordinal, reason="gone", at=AT))

    @rule()
    def model(self) -> None:
        self.attempt(lambda: call_model(self.run, len(self.run.model_calls) + 1))

    @precondition(lambda self: len(self.history) > 8)
    @rule()
    def complete_run(self) -> None:
        self.attempt(lambda: self.run.complete(answer="a", cpu_seconds=0.0, at=AT))

    @precondition(lambda self: len(self.history) > 8)
    @rule()
    def fail_run(self) -> None:
        self.attempt(lambda: self.run.fail(error={"code": "x", "reason": ""}, cpu_seconds=0.0, at=AT))

    @precondition(lambda self: len(self.history) > 8)
    @rule()
    def cancel_run(self) -> None:
        self.attempt(lambda: self.run.cancel(by="u", cpu_seconds=0.0, at=AT))

    @invariant()
    def the_history_keeps_the_rules(self) -> None:
        names = kinds(self.history)
        ends = [at for at, name in enumerate(names) if name in ("Completed", "Failed", "Cancelled")]
        assert len(ends) <= 1
        assert not ends or ends[0] == len(names) - 1
        authorized: list[int] = []
        settled: list[int] = []
        for event in self.history:
            if isinstance(event, facts.ToolCallAuthorized):
                assert event.ordinal not in authorized
                authorized.append(event.ordinal)
            elif isinstance(event, (facts.ToolCallCompleted, facts.ToolCallUnknown)):
                assert event.ordinal in authorized
                assert event.ordinal not in settled
                settled.append(event.ordinal)
        if ends:
            assert sorted(authorized) == sorted(settled)

    @invariant()
    def replaying_it_gives_the_same_run(self) -> None:
        again: Any = None
        for event in self.history:
            again = event.mutate(again)
        assert again == self.run


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
