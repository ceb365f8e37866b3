"""Deficit round robin under caps: who gets the next turn, who is refused, and what a cancelled wait leaves behind."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit_agent_runtime.fairness import FairGate, Turn
from remit_contracts.errors import Overloaded


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_quiet_user_is_next_however_many_turns_another_has_waiting() -> None:
    gate = FairGate(in_flight=1, in_flight_per_user=1)
    served: list[str] = []

    async def take(user: str) -> None:
        async with gate.turn(user):
            served.append(user)
            await asyncio.sleep(0)

    loud = [asyncio.create_task(take("loud")) for _ in range(20)]
    await _settle()
    quiet = asyncio.create_task(take("quiet"))
    before = len(served)
    await quiet
    assert served.index("quiet") - before <= 2
    await asyncio.gather(*loud)
    assert Counter(served) == {"loud": 20, "quiet": 1}


async def test_two_busy_users_alternate() -> None:
    gate = FairGate(in_flight=1, in_flight_per_user=1)
    served: list[str] = []

    async def take(user: str) -> None:
        async with gate.turn(user):
            served.append(user)

    async with gate.turn("other"):
        waiting = [asyncio.create_task(take("a")) for _ in range(5)]
        await _settle()
        waiting += [asyncio.create_task(take("b")) for _ in range(5)]
        await _settle()
    await asyncio.gather(*waiting)
    assert served == ["a", "b"] * 5


async def test_a_costly_turn_waits_until_its_user_has_saved_up_for_it() -> None:
    gate = FairGate(in_flight=1, in_flight_per_user=1)
    served: list[str] = []

    async def take(user: str, cost: float) -> None:
        async with gate.turn(user, cost=cost):
            served.append(user)

    async with gate.turn("other"):
        waiting = [asyncio.create_task(take("dear", 3.0)), *(asyncio.create_task(take("cheap", 1.0)) for _ in range(4))]
        await _settle()
    await asyncio.gather(*waiting)
    assert served == ["cheap", "cheap", "dear", "cheap", "cheap"]


async def test_one_user_never_holds_more_turns_than_the_cap_per_user() -> None:
    gate = FairGate(in_flight=8, in_flight_per_user=3)
    held = most = 0

    async def take() -> None:
        nonlocal held, most
        async with gate.turn("loud"):
            held += 1
            most = max(most, held)
            await asyncio.sleep(0)
            held -= 1

    await asyncio.gather(*(take() for _ in range(30)))
    assert most == 3


async def test_a_full_line_refuses_at_once_and_says_when_to_come_back() -> None:
    gate = FairGate(in_flight=1, in_flight_per_user=1, waiting=10, waiting_per_user=2, retry_after_seconds=7.0)
    await gate.enter("loud")
    waiting = [asyncio.create_task(gate.enter("loud")) for _ in range(2)]
    await _settle()
    with pytest.raises(Overloaded) as refused:
        await gate.enter("loud")
    assert refused.value.retry_after_seconds == 7.0
    other = asyncio.create_task(gate.enter("quiet"))
    await _settle()
    assert gate.waiting == 3
    for task in (*waiting, other):
        task.cancel()
    await asyncio.gather(*waiting, other, return_exceptions=True)


async def test_the_whole_gate_has_a_bound_too() -> None:
    gate = FairGate(in_flight=1, in_flight_per_user=1, waiting=2)
    await gate.enter("a")
    waiting = [asyncio.create_task(gate.enter(user)) for user in ("b", "c")]
    await _settle()
    with pytest.raises(Overloaded, match="2 calls are waiting"):
        await gate.enter("d")
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_cancelled_wait_leaves_its_place_and_the_next_one_goes_on() -> None:
    gate = FairGate(in_flight=1, in_flight_per_user=1)
    await gate.enter("a")
    first, second = asyncio.create_task(gate.enter("b")), asyncio.create_task(gate.enter("b"))
    await _settle()
    first.cancel()
    gate.leave("a")
    await second
    assert (gate.in_flight, gate.waiting) == (1, 0)
    gate.leave("b")
    assert (gate.in_flight, gate.waiting) == (0, 0)
    assert not gate._lines
    assert not gate._ring


async def test_a_turn_that_came_as_its_task_was_cancelled_is_handed_on() -> None:
    gate = FairGate(in_flight=1, in_flight_per_user=1)
    await gate.enter("a")
    first = asyncio.create_task(gate.enter("b"))
    await _settle()
    gate.leave("a")  # grants b, whose task has not run yet
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (gate.in_flight, gate.waiting) == (0, 0)


async def test_a_turn_that_was_given_up_comes_first_in_its_users_line_which_does_not_refuse_it() -> None:
    gate = FairGate(in_flight=1, in_flight_per_user=1, waiting=1)
    served: list[str] = []

    async def take(name: str) -> None:
        async with gate.turn("a"):
            served.append(name)

    turn = Turn(gate, "a")
    await turn.take()
    turn.give_up()
    turn.give_up()
    await gate.enter("a")
    later = asyncio.create_task(take("later"))
    await _settle()
    again = asyncio.create_task(turn.take())
    again.add_done_callback(lambda _: served.append("again"))
    await _settle()
    gate.leave("a")
    await again
    await _settle()
    assert (served, gate.in_flight) == (["again"], 1)
    await turn.take()  # it is held: nothing to wait for
    turn.give_up()
    await later
    assert (served, gate.in_flight, gate.waiting, len(gate._lines)) == (["again", "later"], 0, 0, 0)


@settings(max_examples=60, deadline=None)
@given(
    plan=st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from([0.5, 1.0, 2.0]), st.booleans()), min_size=1, max_size=40
    ),
    in_flight=st.integers(1, 4),
    per_user=st.integers(1, 4),
)
def test_whatever_is_cancelled_every_other_turn_comes_and_nothing_is_left(
    plan: list[tuple[str, float, bool]], in_flight: int, per_user: int
) -> None:
    async def scenario() -> None:
        gate = FairGate(in_flight=in_flight, in_flight_per_user=per_user)
        finished: list[int] = []

        async def take(number: int, user: str, cost: float) -> None:
            async with gate.turn(user, cost=cost):
                assert gate.in_flight <= in_flight
                await asyncio.sleep(0)
                finished.append(number)

        tasks = [asyncio.create_task(take(number, user, cost)) for number, (user, cost, _) in enumerate(plan)]
        await asyncio.sleep(0)
        for task, (_, _, cancelled) in zip(tasks, plan, strict=True):
            if cancelled:
                task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in ended)
        assert {number for number, (_, _, cancelled) in enumerate(plan) if not cancelled} <= set(finished)
        assert (gate.in_flight, gate.waiting, len(gate._lines), len(gate._ring)) == (0, 0, 0, 0)

    asyncio.run(asyncio.wait_for(scenario(), 10))
