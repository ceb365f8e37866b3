"""The agent runtime on a real bus with its real tool host, event store and work queue.

Policy is played by a responder with policy's own nkey and signing key: it allows all but what a test denies.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import msgspec
import orjson
import pytest
from fixtures_nats import Bus
from integration.known_sessions import known_sessions
from nats.aio.client import Client
from nats.aio.msg import Msg

from remit_agent_runtime.__main__ import build
from remit_agent_runtime.fairness import FairGate
from remit_agent_runtime.jobs import Jobs
from remit_agent_runtime.queue import RunQueue
from remit_agent_runtime.settings import AgentRuntimeSettings
from remit_agent_runtime.worker import Cancellation
from remit_chassis.permits import PermitSigner
from remit_chassis.service import Service
from remit_chassis.settings import read_hex_secret
from remit_contracts import fast_decisions, subjects
from remit_contracts.permits import PermitClaims
from remit_infra.streams import ensure_streams

TENANT, USER = "acme", "u-1"
INBOX = "_INBOX.acme.u-1.s-1"


class OneKey:
    """A key for everybody: these tests are about runs."""

    def cached(self, tenant: str, user: str) -> bytes:
        return bytes(32)

    async def key(self, tenant: str, user: str) -> bytes:
        return bytes(32)

    def forget(self, tenant: str, user: str) -> None:
        """Nothing is kept."""


class Policy:
    """Answers `decide` with real permits; `denied` are resource ids. May be `silent_about_tools`, or at first."""

    def __init__(self, bus: Bus) -> None:
        self.denied: set[str] = set()
        self.decided = 0
        self.silent_about_tools = False
        self.silent_at_first = 0
        """How many questions get no answer before the first that does."""
        self._signer = PermitSigner(read_hex_secret(bus.home.secrets / "permit.key"))

    def answer(self, subject: str, payload: bytes) -> bytes | None:
        asked = fast_decisions.DecisionRequest.from_bytes(payload)
        if self.silent_about_tools and asked.action.name == "tool.call":
            return None
        if self.silent_at_first:
            self.silent_at_first -= 1
            return None
        _, tenant, user, *_ = subject.split(".")
        self.decided += 1
        allowed = asked.resource.id not in self.denied
        decision_id, context, permit = f"d-{self.decided}", asked.context, None
        if allowed and asked.action.name == "tool.call":
            now = time.time()
            permit = self._signer.sign(
                PermitClaims(
                    jti=decision_id,
                    tenant=tenant,
                    user=user,
                    session=context.session,
                    run=context.run,
                    ordinal=context.ordinal or 0,
                    tool=asked.resource.id,
                    args_digest=context.args_digest,
                    bundle_digest="b",
                    data_revision="1",
                    input_digest="i",
                    iat=now,
                    exp=now + 15,
                )
            )
        return fast_decisions.DecisionAnswer(
            decision=allowed,
            context=fast_decisions.AnswerContext(
                decision_id=decision_id,
                reasons=() if allowed else (fast_decisions.Reason("policy.no_grant", "no role grants it"),),
                permit=permit,
                input=msgspec.Raw(payload),
            ),
        ).to_bytes()


@asynccontextmanager
async def policy_on(bus: Bus) -> AsyncIterator[Policy]:
    """Policy's place on the bus."""
    policy = Policy(bus)
    nc = await bus.connect_as("policy", allow_reconnect=True, reconnect_time_wait=0.1, max_reconnect_attempts=-1)

    async def decide(message: Msg) -> None:
        if answer := policy.answer(message.subject, message.data):
            await nc.publish(message.reply, answer)

    await nc.subscribe(subjects.any_request("rpc", "policy", "decide"), cb=decide)
    await nc.flush()
    try:
        yield policy
    finally:
        await nc.close()


@asynccontextmanager
async def runtime_on(bus: Bus) -> AsyncIterator[Service]:
    """The service, started and at work, then stopped as by SIGTERM."""
    service = build(AgentRuntimeSettings(home=bus.home.path, nats_url=bus.url), user_keys=OneKey())
    async with known_sessions(bus, "s-1"):
        await service.start()
        await service._until_ready()
        for hook in service._on_ready:
            await hook()
        try:
            yield service
        finally:
            await service.shut_down()


@pytest.fixture
async def bus(nats_bus: Bus) -> Bus:
    """A bus with its streams, a home with a source, its tool and two agents."""
    nats_bus.add_anyone()
    home = nats_bus.home.path
    await ensure_streams(nats_bus.home, nats_bus.url, [TENANT])
    for folder in (home / "sources" / TENANT, home / "tools", home / "agents" / TENANT):
        folder.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(home / "sources" / TENANT / "flights.sqlite") as source:
        source.execute("create table flights (carrier text, origin text, dep_delay integer)")
        source.executemany("insert into flights values (?, ?, ?)", [("UA", "EWR", 2), ("B6", "JFK", -1)])
    source.close()
    (home / "tools" / f"{TENANT}.yaml").write_text(
        "tools:\n"
        f"  - {{id: sql, kind: sql, source: sources/{TENANT}/flights.sqlite}}\n"
        "  - {id: days-between, kind: function, entry: days_between}\n"
    )
    agents = home / "agents" / TENANT
    (agents / "analyst.yaml").write_text("name: analyst\nmodel: scripted\ntools: [sql]\n")
    (agents / "broken.yaml").write_text("name: broken\ntools: [teleport]\n")
    return nats_bus


async def ask(nc: Client, verb: str, payload: dict[str, Any], *, user: str = USER) -> dict[str, Any]:
    """A user's command, with a reply in that user's inbox."""
    inbox = f"_INBOX.{TENANT}.{user}.s-1.{nc._nuid.next().decode()}"
    listening = await nc.subscribe(inbox)
    await nc.publish(subjects.command(TENANT, user, "agent-runtime", verb), orjson.dumps(payload), reply=inbox)
    try:
        answer: dict[str, Any] = orjson.loads((await listening.next_msg(10)).data or b"{}")  # empty: nobody is there
        return answer
    finally:
        await listening.unsubscribe()


async def start(nc: Client, prompt: str) -> str:
    """The id of a run of the analyst."""
    answer = await ask(nc, "start-run", {"agent": "analyst", "prompt": prompt})
    assert "run_id" in answer, answer
    return str(answer["run_id"])


async def ended(nc: Client, run_id: str, *, seconds: float = 30.0) -> dict[str, Any]:
    """The run's view once it has ended."""
    async with asyncio.timeout(seconds):
        while True:
            view = await ask(nc, "show-run", {"run_id": run_id})
            if view.get("status") in ("completed", "failed", "cancelled"):
                return view
            await asyncio.sleep(0.02)


@asynccontextmanager
async def a_client(bus: Bus) -> AsyncIterator[Client]:
    nc = await bus.connect_as_anyone()
    try:
        yield nc
    finally:
        await nc.close()


async def test_a_run_goes_over_the_bus_and_comes_back_answered(bus: Bus) -> None:
    async with policy_on(bus), runtime_on(bus), a_client(bus) as nc:
        watching = await nc.subscribe(subjects.live(TENANT, USER, "run") + ".*")
        run_id = await start(nc, "SELECT carrier FROM flights ORDER BY 1")
        view = await ended(nc, run_id)
        assert view["status"] == "completed", view["error"]
        assert "B6\nUA" in view["answer"]
        assert "no language model" in view["answer"]
        assert (await ask(nc, "list-runs", {}))["runs"][0]["run_id"] == run_id
        said = []
        while not said or said[-1]["type"] != "end":
            said.append(orjson.loads((await watching.next_msg(5)).data))
        assert {message["run_id"] for message in said} == {run_id}
        assert [message["type"] for message in said] == ["status", "status", "model", "tool", "tool", "text", "end"]
        numbers = [message["seq"] for message in said]
        assert numbers == sorted(set(numbers))


async def test_a_denied_tool_stops_the_run_with_the_decisions_id(bus: Bus) -> None:
    async with policy_on(bus) as policy, runtime_on(bus), a_client(bus) as nc:
        policy.denied.add("sql")
        run_id = await start(nc, "SELECT 1")
        view = await ended(nc, run_id)
        assert view["status"] == "failed"
        assert view["error"] == {
            "code": "policy.denied",
            "reason": "no role grants it",
            "decision_id": "d-2",
            "retry_after_seconds": None,
        }


BAD_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"agent": "nobody", "prompt": "x"}, "absent"),
    ({"agent": "broken", "prompt": "x"}, "agent.invalid"),
    ({"agent": "../acme/analyst", "prompt": "x"}, "request.malformed"),
    ({"agent": "analyst", "prompt": ""}, "request.malformed"),
    ({"agent": "analyst", "prompt": "x" * 32_001}, "request.malformed"),
    ({"agent": "analyst", "prompt": "x" * 200_000}, "request.too_large"),
    ({"agent": "analyst", "prompt": "x", "user": "u-2"}, "request.malformed"),
    ({"agent": "analyst"}, "request.malformed"),
    ({"agent": 7, "prompt": "x"}, "request.malformed"),
]


async def test_a_bad_request_is_refused_with_its_code_and_starts_nothing(bus: Bus) -> None:
    async with policy_on(bus), runtime_on(bus) as service, a_client(bus) as nc:
        codes = [(await ask(nc, "start-run", payload))["error"]["code"] for payload, _ in BAD_REQUESTS]
        assert codes == [code for _, code in BAD_REQUESTS]
        assert service.stores.of(TENANT).head()[0] == 0


async def test_a_policy_that_leaves_two_questions_about_a_new_run_without_an_answer_is_asked_a_third_time(
    bus: Bus,
) -> None:
    async with policy_on(bus) as policy, runtime_on(bus), a_client(bus) as nc:
        policy.silent_at_first = 2
        view = await ended(nc, await start(nc, "SELECT carrier FROM flights"))
        assert view["status"] == "completed", view["error"]


async def test_another_users_run_is_absent_without_a_permission(bus: Bus) -> None:
    async with policy_on(bus) as policy, runtime_on(bus), a_client(bus) as nc:
        run_id = await start(nc, "SELECT 1")
        policy.denied.add(run_id)
        for verb in ("show-run", "cancel-run"):
            refused = await ask(nc, verb, {"run_id": run_id}, user="u-2")
            absent = await ask(nc, verb, {"run_id": "0" * 32}, user="u-2")
            assert refused["error"]["code"] == "absent"
            assert refused["error"]["reason"].replace(run_id, "0" * 32) == absent["error"]["reason"]


async def test_a_run_that_was_accepted_ends_though_the_runtime_stopped(bus: Bus) -> None:
    """The first runtime waits for policy when it is stopped; the second one takes up what it left."""
    async with a_client(bus) as nc:
        async with policy_on(bus) as policy, runtime_on(bus) as service:
            policy.silent_about_tools = True
            ids = [await start(nc, f"SELECT {number}") for number in range(12)]
            owed = await service.stores.of(TENANT).read(1, 10_000)
            assert not [event for event in owed if event.topic == "runtime.Run.Completed"]
        async with policy_on(bus), runtime_on(bus) as service:
            views = [await ended(nc, run_id) for run_id in ids]
            assert [view["status"] for view in views] == ["completed"] * 12
            events = await service.stores.of(TENANT).read(1, 10_000)
            ends = [event.originator_id for event in events if event.topic == "runtime.Run.Completed"]
            assert sorted(ends) == sorted(ids)


async def test_runs_end_though_the_bus_is_killed_under_them(bus: Bus) -> None:
    async with policy_on(bus), runtime_on(bus) as service:
        async with a_client(bus) as nc:
            ids = [await start(nc, f"SELECT {number}") for number in range(8)]
        bus.stop(signal.SIGKILL)
        bus.start()
        async with asyncio.timeout(60):
            while not service.nc.is_connected:
                await asyncio.sleep(0.05)
            async with a_client(bus) as nc:
                views = [await ended(nc, run_id, seconds=50) for run_id in ids]
        assert {view["status"] for view in views} <= {"completed", "failed"}
        events = await service.stores.of(TENANT).read(1, 10_000)
        ends = [e.originator_id for e in events if e.topic in ("runtime.Run.Completed", "runtime.Run.Failed")]
        assert sorted(ends) == sorted(ids)


async def test_jobs_leave_the_work_queue_when_their_runs_have_ended(bus: Bus) -> None:
    async with policy_on(bus), runtime_on(bus) as service, a_client(bus) as nc:
        run_id = await start(nc, "SELECT 1")
        await ended(nc, run_id)
        async with asyncio.timeout(10):
            while (await service.nc.jetstream().stream_info("RUNS")).state.messages:
                await asyncio.sleep(0.02)


async def test_runs_that_were_accepted_leave_room_for_their_own_jobs(bus: Bus) -> None:
    worked: set[UUID] = set()
    all_worked = asyncio.Event()

    async def work(tenant: str, run_id: UUID, cancellation: Cancellation) -> None:
        worked.add(run_id)
        if len(worked) == 2:
            all_worked.set()

    nc = await bus.connect_as("agent-runtime")
    turns = FairGate(in_flight=2, in_flight_per_user=2)
    queue = RunQueue(work=work, turns=turns, limit=2, limit_per_user=2)
    jobs = Jobs(nc=lambda: nc, queue=queue, limit=2)
    runs = {uuid4(), uuid4()}
    for run_id in runs:
        queue.admit(TENANT, USER, run_id)
        await jobs.publish(TENANT, USER, "analyst", run_id)
    consuming = asyncio.create_task(jobs.consume())
    try:
        async with asyncio.timeout(20):
            await all_worked.wait()
    finally:
        await jobs.close()
        consuming.cancel()
        await asyncio.wait([consuming])
        await queue.close()
        await nc.close()
    assert worked == runs


async def test_a_job_that_names_no_run_does_not_stop_the_queue(bus: Bus) -> None:
    async with policy_on(bus), runtime_on(bus) as service, a_client(bus) as nc:
        stream = service.nc.jetstream()
        for poison in (b"", b"{", b'{"run_id": "x"}', orjson.dumps({"run_id": "0" * 32})):
            await stream.publish(subjects.job(TENANT, USER, "analyst"), poison)
        run_id = await start(nc, "SELECT 1")
        assert (await ended(nc, run_id))["status"] == "completed"
        async with asyncio.timeout(10):
            while (await stream.stream_info("RUNS")).state.messages:
                await asyncio.sleep(0.02)


async def test_a_killed_tool_host_leaves_no_run_without_an_end(bus: Bus) -> None:
    async with policy_on(bus), runtime_on(bus) as service, a_client(bus) as nc:
        run_id = await start(nc, "SELECT 1")
        told = await service.checks["tool-host"]()
        os.kill(int(told.removeprefix("process ")), signal.SIGKILL)
        assert (await ended(nc, run_id))["status"] in ("completed", "failed")
        again = await start(nc, "SELECT 2")
        assert (await ended(nc, again))["status"] == "completed"
