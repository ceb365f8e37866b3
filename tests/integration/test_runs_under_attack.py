"""Attacks on a running runtime, judged by the ledger of the desk outside on which its tools act.

Deny by default, nothing unrecorded, nothing dropped in silence, nothing twice: whatever happens to policy, to the store,
to the work queue and to the tool host.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import orjson
import pytest
from eventsourcing.persistence import OperationalError
from fixtures_nats import Bus
from integration.acting_runtime import ENDS, TENANT, acting

from remit_agent_runtime import queue, tool_gate
from remit_chassis.eventstore.recorders import SQLiteEventRecorder
from remit_contracts import subjects
from remit_contracts.errors import refusal_from
from remit_contracts.fast_decisions import Obligation

AUTHORIZED = "runtime.Run.ToolCallAuthorized"


async def until(condition: Any) -> None:
    """Wait until `condition()` is true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Every commit of an event fails, as on a full disk; gives how many were tried."""
    tried: list[int] = []

    def no_space(recorder: Any, saves: Any, recorded_at: str) -> Any:
        tried.append(len(saves))
        raise OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(SQLiteEventRecorder, "insert_saves", no_space)
        yield tried


async def test_a_call_goes_out_once_with_its_key_and_its_authorisation_before_it(nats_bus: Bus) -> None:
    """The scene works, so the attacks below fail for their own reason."""
    async with acting(nats_bus) as at:
        run_id = (await at.start("a", "b"))["run_id"]
        assert (await at.ended(run_id))["status"] == "completed"
        assert at.effects == [f"{run_id}:1", f"{run_id}:2"]
        assert (await at.topics(run_id)).count(AUTHORIZED) == 2


# -- whose session ----------------------------------------------------------------------------------------------------


async def test_no_run_is_accepted_or_decided_under_a_session_that_is_none_of_the_users(nats_bus: Bus) -> None:
    """A client may write any session of the right shape into its reply subject: the server does not check it."""
    async with acting(nats_bus) as at:
        asked = {"agent": "clerk", "prompt": '{"script": []}'}
        refused = await at.command("start-run", asked, session="s-never-was")
        assert refused["error"]["code"] == "auth.session_ended"
        assert refusal_from(refused).exit_code == 7
        assert (await at.service.stores.of(TENANT).read(1, 10)) == []
        kept = await at.command("start-run", asked)
        assert (await at.ended(kept["run_id"]))["status"] == "completed"
        head = at.service.stores.of(TENANT).head()
        for verb, run_id in product(("show-run", "cancel-run"), (kept["run_id"], "f" * 32)):
            prying = await at.command(verb, {"run_id": run_id}, user="u-2", session="s-never-was")
            assert prying["error"]["code"] == "auth.session_ended"
        assert (await at.command("list-agents", {}, session="s-never-was"))["error"]["code"] == "auth.session_ended"
        at.sessions.discard("s-1")  # it has ended since
        assert (await at.command("start-run", asked))["error"]["code"] == "auth.session_ended"
        assert at.service.stores.of(TENANT).head() == head


# -- deny by default --------------------------------------------------------------------------------------------------


UNKEEPABLE = [
    Obligation("watermark", {"text": "secret"}),
    Obligation("Max_Rows", {"limit": 5}),
    Obligation("max_rows", {"limit": 5, "unless": "urgent"}),
    Obligation("max_rows", {"limit": "5"}),
    Obligation("mask_fields", {"fields": ["word"]}),
]


async def test_an_obligation_that_nobody_can_keep_lets_nothing_happen(nats_bus: Bus) -> None:
    async with acting(nats_bus) as at:
        for obligation in UNKEEPABLE:
            at.others.obligations = (obligation,)
            view = await at.ended((await at.start("a"))["run_id"])
            assert (view["status"], at.effects) == ("failed", []), obligation
            assert view["error"]["code"] in ("tool.unknown_obligation", "tool.unenforceable_obligation"), obligation


async def test_a_silent_policy_lets_nothing_happen_and_says_so(nats_bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_gate, "DECIDE_SECONDS", 0.3)
    monkeypatch.setattr(tool_gate.ToolGate.__init__, "__kwdefaults__", {"patience_seconds": 0.5})
    async with acting(nats_bus) as at:
        at.others.decides_calls.clear()
        run_id = (await at.start("a"))["run_id"]
        view = await at.ended(run_id)
        assert (view["status"], view["error"]["code"], at.effects) == ("failed", "unavailable", [])
        assert "runtime.Run.ToolCallDenied" in await at.topics(run_id)
        at.others.decides_calls.set()  # an answer that comes too late is nobody's permission
        assert (await at.ended((await at.start("b"))["run_id"]))["status"] == "completed"
        assert len(at.effects) == 1


# -- nothing happens unrecorded ---------------------------------------------------------------------------------------


async def test_while_the_authorisation_cannot_be_stored_the_tool_is_not_called(
    nats_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy allows, the broker lends, and the disk is full at that very moment."""
    monkeypatch.setattr(queue, "RETRY_AFTER_SECONDS", 0.2)
    async with acting(nats_bus) as at:
        at.others.decides_calls.clear()
        run_id = (await at.start("a"))["run_id"]
        await until(lambda: at.others.asked_about_calls)
        with full_disk(monkeypatch) as tried:
            at.others.decides_calls.set()
            await until(lambda: len(tried) > 2)  # the worker has given up, and taken the run up again, and again
            assert at.effects == []
        assert (await at.ended(run_id))["status"] == "completed"
        assert at.effects == [f"{run_id}:1"]
        assert (await at.topics(run_id)).count(AUTHORIZED) == 1


async def test_what_was_refused_for_want_of_a_disk_was_not_accepted(
    nats_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with acting(nats_bus) as at:
        with full_disk(monkeypatch) as tried:
            refused = refusal_from(await at.start("a"))
            assert (refused.refusal_code, refused.exit_code) == ("unavailable", 5)
            assert tried
        assert (await at.command("list-runs", {}))["runs"] == []
        assert at.effects == []
        await at.ended((await at.start("b"))["run_id"])
        assert len(at.effects) == 1


# -- overload is refused loudly ---------------------------------------------------------------------------------------


async def test_a_full_queue_refuses_loudly_leaves_others_room_and_loses_nothing(nats_bus: Bus) -> None:
    async with acting(nats_bus, runs_in_hand=4, runs_in_hand_per_user=3) as at:
        at.others.decides_calls.clear()
        answers = await asyncio.gather(*(at.start("a") for _ in range(6)))
        accepted = [answer["run_id"] for answer in answers if "run_id" in answer]
        refused = [refusal_from(answer) for answer in answers if "error" in answer]
        assert (len(accepted), len(refused)) == (3, 3)
        assert {(each.refusal_code, each.exit_code) for each in refused} == {("overloaded", 75)}
        assert all(each.retry_after_seconds for each in refused)
        quiet = (await at.start("b", user="u-2"))["run_id"]
        assert refusal_from(await at.start("b", user="u-3")).refusal_code == "overloaded"
        assert at.effects == []
        at.others.decides_calls.set()
        assert {(await at.ended(run_id))["status"] for run_id in accepted} == {"completed"}
        assert (await at.ended(quiet, user="u-2"))["status"] == "completed"
        assert sorted(at.effects) == sorted(f"{run_id}:1" for run_id in (*accepted, quiet))
        assert (await at.ended((await at.start("c"))["run_id"]))["status"] == "completed"


async def test_calls_beyond_what_may_wait_are_refused_and_their_runs_say_so(nats_bus: Bus) -> None:
    async with acting(
        nats_bus,
        tool_calls_at_once=1,
        tool_calls_at_once_per_user=1,
        tool_calls_waiting=1,
        tool_calls_waiting_per_user=1,
    ) as at:
        at.others.decides_calls.clear()
        runs = [(await at.start("a"))["run_id"] for _ in range(4)]
        async with asyncio.timeout(20):
            while [row["status"] for row in (await at.command("list-runs", {}))["runs"]].count("failed") < 2:
                await asyncio.sleep(0.02)
        at.others.decides_calls.set()
        views = [await at.ended(run_id) for run_id in runs]
        codes = sorted((view["error"] or {}).get("code", view["status"]) for view in views)
        assert codes == ["completed", "completed", "overloaded", "overloaded"]
        assert len(at.effects) == 2


# -- at most once -----------------------------------------------------------------------------------------------------


async def test_a_replayed_job_repeats_no_effect_and_ends_no_run_twice(nats_bus: Bus) -> None:
    async with acting(nats_bus) as at:
        run_id = (await at.start("a", "b"))["run_id"]
        await at.ended(run_id)
        stream = at.nc.jetstream()
        for number in range(5):  # ids that the stream has not seen: its own dedupe lets them pass
            body = orjson.dumps({"run_id": run_id})
            await stream.publish(subjects.job(TENANT, "u-1", "clerk"), body, headers={"Nats-Msg-Id": f"again-{number}"})
        async with asyncio.timeout(20):
            while (await stream.stream_info("RUNS")).state.messages:
                await asyncio.sleep(0.02)
        assert at.effects == [f"{run_id}:1", f"{run_id}:2"]
        topics = await at.topics(run_id)
        assert len([topic for topic in topics if topic in ENDS]) == 1
        assert topics.count("runtime.Run.Started") == 1


async def test_a_job_under_another_users_subject_moves_nobodys_run(nats_bus: Bus) -> None:
    async with acting(nats_bus) as at:
        run_id = (await at.start("a"))["run_id"]
        await at.ended(run_id)
        body = orjson.dumps({"run_id": run_id})
        await at.nc.jetstream().publish(subjects.job(TENANT, "u-2", "clerk"), body)
        await at.nc.jetstream().publish(subjects.job("globex", "u-1", "clerk"), body)
        async with asyncio.timeout(20):
            while (await at.nc.jetstream().stream_info("RUNS")).state.messages:
                await asyncio.sleep(0.02)
        assert at.effects == [f"{run_id}:1"]
        assert (await at.command("list-runs", {}, user="u-2"))["runs"] == []


async def test_a_request_sent_ten_times_under_one_key_acts_once(nats_bus: Bus) -> None:
    async with acting(nats_bus) as at:
        script = orjson.dumps({"script": [{"call": {"tool": "desk", "args": {"word": "a"}}}]}).decode()
        asked = {"agent": "clerk", "prompt": script, "idempotency_key": "k-1"}
        answers = await asyncio.gather(*(at.command("start-run", asked) for _ in range(10)))
        (run_id,) = {answer["run_id"] for answer in answers}
        await at.ended(run_id)
        other = (await at.command("start-run", asked, user="u-2"))["run_id"]
        await at.ended(other, user="u-2")
        assert at.effects == [f"{run_id}:1", f"{other}:1"]
        assert other != run_id, "one user's key never names another's run"


async def test_an_effect_whose_answer_never_came_is_unknown_and_never_repeated(nats_bus: Bus) -> None:
    async with acting(nats_bus) as at:
        run_id = (await at.start("silent", "b"))["run_id"]
        await at.desk.reached.wait()
        told = await at.service.checks["tool-host"]()
        os.kill(int(told.removeprefix("process ")), signal.SIGKILL)
        view = await at.ended(run_id)
        first = next(step for step in view["steps"] if step["type"] == "tool")
        assert (first["ordinal"], first["outcome"]) == (1, "unknown")
        assert at.effects.count(f"{run_id}:1") == 1
        assert len(set(at.effects)) == len(at.effects)
