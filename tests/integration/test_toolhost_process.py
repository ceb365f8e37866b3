"""The tool host as a real process: what it is given, what it refuses, and what becomes of calls when it dies."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from integration.toolhost_desk import Desk
from unit.toolhost.rig import Rig, make_rig

from remit_agent_runtime.tool_host_client import ToolCall, ToolHostClient, ToolHostLost
from remit_agent_runtime.toolhost import wire
from remit_contracts.errors import Unavailable
from remit_contracts.fast_decisions import Obligation

ENDLESS = {"sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"}
DAYS = {"start": "2013-01-01", "end": "2013-02-01"}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return make_rig(tmp_path)


@pytest.fixture
async def client(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ToolHostClient]:
    monkeypatch.setenv("OPENAI_API_KEY", "CANARY-OF-THE-RUNTIME")
    made = rig.client(threads=1)
    await made.start()
    yield made
    await made.close()


async def until_restarted(client: ToolHostClient, old: int) -> None:
    async with asyncio.timeout(20):
        while not client.ready or client.pid == old:
            await asyncio.sleep(0.01)


async def test_every_kind_of_tool_answers(rig: Rig, client: ToolHostClient) -> None:
    days = await client.call(rig.call("days-between", DAYS))
    assert (days.ok, days.content, days.withheld) == (True, {"days": 31}, {})
    rows = await client.call(rig.call("sql", {"sql": "SELECT flight FROM flights ORDER BY flight"}))
    assert rows.content == {"columns": ["flight"], "rows": [[1], [2], [3], [4]], "truncated": False}
    assert rows.cpu_seconds > 0
    assert rows.wall_seconds >= rows.cpu_seconds / 2
    found = await client.call(rig.call("docs", {"query": "permits", "limit": 1}))
    assert found.content["passages"][0]["heading"] == "Guide > Permits"


async def test_obligations_are_enforced_and_told(rig: Rig, client: ToolHostClient) -> None:
    obligations = (
        Obligation("mask_fields", {"fields": ["tailnum"]}),
        Obligation("max_rows", {"limit": 1}),
        Obligation("row_filter", {"column": "carrier", "op": "in", "values": ["UA", "AA"]}),
    )
    asked = {"sql": "SELECT carrier, tailnum FROM flights ORDER BY flight"}
    outcome = await client.call(rig.call("sql", asked, obligations=obligations))
    assert outcome.content["rows"] == [["UA", None]]
    assert outcome.withheld == {"fields": ["tailnum"], "rows_cut": 1, "row_filters": ["flights.carrier"]}


async def test_an_unknown_or_unenforceable_obligation_refuses_the_call(rig: Rig, client: ToolHostClient) -> None:
    for tool, arguments, obligation, code in [
        ("sql", {"sql": "SELECT 1"}, Obligation("watermark", {}), "tool.unknown_obligation"),
        ("days-between", DAYS, Obligation("max_rows", {"limit": 1}), "tool.unenforceable_obligation"),
        ("docs", {"query": "a"}, Obligation("mask_fields", {"fields": ["text"]}), "tool.unenforceable_obligation"),
    ]:
        outcome = await client.call(rig.call(tool, arguments, obligations=(obligation,)))
        assert (outcome.ok, outcome.content) == (False, None)
        assert outcome.error is not None
        assert outcome.error["code"] == code


async def test_the_process_refuses_what_its_permit_does_not_say(rig: Rig, client: ToolHostClient) -> None:
    used = rig.call("days-between", DAYS)
    assert (await client.call(used)).ok
    now = time.time()
    other = rig.call("sql", {"sql": "SELECT 2"})
    foreign = make_rig(_fresh(rig.home / "other")).call("days-between", DAYS)
    for call, code in [
        (used, "permit.used"),
        (rig.call("days-between", DAYS, iat=now - 30, exp=now - 1), "permit.expired"),
        (rig.call("days-between", DAYS, iat=now - 3_600), "permit.before_start"),
        (rig.call("days-between", DAYS, args_digest="0" * 64), "permit.mismatch"),
        (foreign, "permit.bad_signature"),
        (_with_permit_of(rig.call("sql", {"sql": "SELECT 1"}), other), "permit.mismatch"),
        (rig.call("days-between", DAYS, tenant="globex"), "absent"),
        (rig.call("rm", {}), "absent"),
    ]:
        outcome = await client.call(call)
        assert not outcome.ok
        assert outcome.error is not None
        assert outcome.error["code"] == code


async def test_a_used_permit_is_not_good_for_a_second_effect_at_the_same_moment(
    rig: Rig, client: ToolHostClient
) -> None:
    call = rig.call("days-between", DAYS)
    outcomes = await asyncio.gather(*(client.call(call) for _ in range(20)))
    assert sum(outcome.ok for outcome in outcomes) == 1


async def test_many_calls_on_their_way_get_each_their_own_answer(rig: Rig, client: ToolHostClient) -> None:
    async def ask(number: int) -> int:
        outcome = await client.call(rig.call("sql", {"sql": f"SELECT {number} AS n"}))
        return int(outcome.content["rows"][0][0])

    assert await asyncio.gather(*map(ask, range(100))) == list(range(100))


async def test_a_slow_statement_holds_up_no_other_tool_and_is_stopped_when_nobody_waits(
    rig: Rig, client: ToolHostClient
) -> None:
    slow = asyncio.create_task(client.call(rig.call("sql", ENDLESS, deadline_seconds=60)))
    assert (await client.call(rig.call("days-between", DAYS))).ok
    assert not slow.done()
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    # The only thread is free again: the statement did not run on for its own two seconds with nobody waiting.
    assert (await client.call(rig.call("sql", {"sql": "SELECT 1"}, deadline_seconds=1.5))).ok


async def test_one_users_slow_statements_leave_half_of_the_threads_to_others(rig: Rig) -> None:
    (rig.home / "sources/globex").mkdir()
    shutil.copy(rig.home / "sources/acme/flights.sqlite", rig.home / "sources/globex/flights.sqlite")
    (rig.home / "tools/globex.yaml").write_text(
        "tools: [{id: sql, kind: sql, source: sources/globex/flights.sqlite}, {id: docs, kind: documents, folder:"
        " documents/globex}]"
    )
    client = rig.client(threads=4)
    await client.start()
    try:
        slow = [asyncio.create_task(client.call(rig.call("sql", ENDLESS, deadline_seconds=60))) for _ in range(12)]
        await client.call(rig.call("days-between", DAYS))  # frames go in order: the twelve were received before
        other = {"tenant": "globex", "user": "u-9"}
        rows = await client.call(rig.call("sql", {"sql": "SELECT 1"}, **other))
        found = await client.call(rig.call("docs", {"query": "permit"}, **other))
        assert (rows.ok, found.ok) == (True, True)
        # Each of them runs for two seconds: with every thread in this user's hands, the first had ended before.
        assert not any(call.done() for call in slow)
        for call in slow:
            call.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    finally:
        await client.close()


async def test_a_call_that_waits_for_its_users_turn_ends_at_its_deadline(rig: Rig, client: ToolHostClient) -> None:
    slow = asyncio.create_task(client.call(rig.call("sql", ENDLESS, deadline_seconds=60)))
    await client.call(rig.call("days-between", DAYS))  # frames go in order
    outcome = await client.call(rig.call("sql", {"sql": "SELECT 1"}, deadline_seconds=0.2))
    assert outcome.error is not None
    assert outcome.error["code"] == "tool.timeout"
    assert "too busy to begin" in outcome.error["reason"]
    assert not slow.done()
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)
    assert (await client.call(rig.call("sql", {"sql": "SELECT 1"}))).ok  # the turn that nobody took is no turn held


async def test_a_host_with_a_thread_that_does_not_stop_says_so_and_is_replaced_when_no_call_is_open(
    rig: Rig, capfd: pytest.CaptureFixture[str]
) -> None:
    client = rig.client(threads=4, overdue_seconds=0.2)
    await client.start()
    old = client.pid
    assert old is not None
    # SQLite waits five seconds for the writer's lock, without a look at any deadline.
    with closing(sqlite3.connect(rig.home / "sources/acme/flights.sqlite", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        try:
            stuck = asyncio.create_task(client.call(rig.call("sql", {"sql": "SELECT 1"}, deadline_seconds=0.2)))
            async with Desk() as desk:
                rig.write_tools(f"http://{desk.address}/{{airport}}")
                claims = rig.claims("desk", {"airport": "silent"}, user="u-2")
                sealed = rig.lease(claims, hosts=(desk.address,))
                held = rig.call("desk", {"airport": "silent"}, claims=claims, sealed=sealed, deadline_seconds=60)
                open_call = asyncio.create_task(client.call(held))
                await desk.reached.wait()
                outcome = await stuck
                assert outcome.error is not None
                assert outcome.error["code"] == "tool.timeout"
                async with asyncio.timeout(20):
                    while not client.overdue:
                        await asyncio.sleep(0.01)
                with pytest.raises(Unavailable, match=r"1 thread\(s\) of the tool host do not stop"):
                    await client.check()
                assert (client.pid, client.overdue) == (old, 1)  # not while another's call is open
                assert (await client.call(rig.call("days-between", DAYS))).ok
                open_call.cancel()
                await asyncio.gather(open_call, return_exceptions=True)
            await until_restarted(client, old)
            assert await client.check() == f"process {client.pid}"
            assert (await client.call(rig.call("days-between", DAYS))).ok
        finally:
            await client.close()
    assert "tool threads that work on although their call is over: 1" in capfd.readouterr().err


async def test_a_statement_over_its_time_is_told_so(rig: Rig, client: ToolHostClient) -> None:
    outcome = await client.call(rig.call("sql", ENDLESS, deadline_seconds=0.3))
    assert outcome.error is not None
    assert outcome.error["code"] == "tool.timeout"


async def test_the_process_gets_nothing_of_the_runtimes(rig: Rig, client: ToolHostClient) -> None:
    process = Path(f"/proc/{client.pid}")
    try:
        assert (process / "environ").read_bytes() == b""
        sockets = [os.readlink(fd) for fd in (process / "fd").iterdir() if os.readlink(fd).startswith("socket:")]
        assert len(sockets) <= 3  # ours, and the event loop's own pair
    except PermissionError:
        pass  # not even its own user may look: it cannot be dumped
    words = (process / "cmdline").read_bytes()
    assert b"CANARY" not in words
    assert (rig.home / "tool-host.key").read_bytes() not in words


async def test_a_host_killed_with_calls_on_their_way_is_lost_and_comes_back(rig: Rig, client: ToolHostClient) -> None:
    old = client.pid
    assert old is not None
    before = rig.call("days-between", DAYS)
    calls = [asyncio.create_task(client.call(rig.call("sql", ENDLESS))) for _ in range(3)]
    await client.call(rig.call("days-between", DAYS))  # frames go in order: the three were received before
    os.kill(old, signal.SIGKILL)
    for call in calls:
        with pytest.raises(ToolHostLost):
            await call
    await until_restarted(client, old)
    assert (await client.call(rig.call("days-between", DAYS))).ok
    stale = await client.call(before)  # it may have been used by the host that is no more
    assert stale.error is not None
    assert stale.error["code"] == "permit.before_start"


async def test_a_call_during_a_restart_waits_for_the_next_host(rig: Rig, client: ToolHostClient) -> None:
    old = client.pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    async with asyncio.timeout(10):
        while client.ready:
            await asyncio.sleep(0.001)
    async with asyncio.timeout(20):
        await until_restarted(client, old)
    assert (await client.call(rig.call("days-between", DAYS))).ok


async def test_without_a_host_nothing_is_sent_and_it_is_said(rig: Rig, client: ToolHostClient) -> None:
    (rig.home / "tool-host.key").unlink()
    os.kill(client.pid or 0, signal.SIGKILL)
    async with asyncio.timeout(10):
        while client.ready:
            await asyncio.sleep(0.001)
    with pytest.raises(Unavailable, match="nothing was sent"):
        await client.call(rig.call("days-between", DAYS, deadline_seconds=0.5))


async def test_a_host_that_cannot_start_says_why_without_the_key(rig: Rig) -> None:
    key = rig.home / "tool-host.key"
    key.write_text("deadbeef")
    with pytest.raises(Unavailable, match=r"tool-host\.key holds 4 bytes where 32 belong") as refused:
        await rig.client().start()
    assert "deadbeef" not in str(refused.value)


async def test_closing_ends_the_process_and_calls_are_refused(rig: Rig) -> None:
    client = rig.client()
    await client.start()
    pid = client.pid
    assert pid is not None
    on_its_way = asyncio.create_task(client.call(rig.call("sql", ENDLESS)))
    await client.call(rig.call("days-between", DAYS))
    await client.close()
    with pytest.raises(ToolHostLost):
        await on_its_way
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(Unavailable):
        await client.call(rig.call("days-between", DAYS))


async def test_a_host_whose_runtime_has_gone_ends_by_itself(rig: Rig, client: ToolHostClient) -> None:
    host = client._host
    assert host is not None
    busy = asyncio.create_task(client.call(rig.call("sql", ENDLESS)))
    await client.call(rig.call("days-between", DAYS))
    host.writer.close()
    async with asyncio.timeout(10):
        assert await host.process.wait() == 0
    with pytest.raises(ToolHostLost):
        await busy


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\0\0\0\x02{}", b"\0\0\0\x01\0"])
async def test_a_frame_that_is_none_ends_the_host_and_a_new_one_comes(
    rig: Rig, client: ToolHostClient, garbage: bytes
) -> None:
    host, old = client._host, client.pid
    assert host is not None
    assert old is not None
    host.writer.write(garbage)
    await until_restarted(client, old)
    assert (await client.call(rig.call("days-between", DAYS))).ok


async def test_arguments_over_a_frame_are_refused_before_they_are_sent(rig: Rig, client: ToolHostClient) -> None:
    outcome = await client.call(rig.call("sql", {"sql": "x" * (wire.MAX_FRAME_BYTES + 1)}))
    assert outcome.error is not None
    assert outcome.error["code"] == "tool.arguments_too_large"
    assert (await client.call(rig.call("days-between", DAYS))).ok


def _fresh(path: Path) -> Path:
    path.mkdir()
    return path


def _with_permit_of(call: ToolCall, other: ToolCall) -> ToolCall:
    return ToolCall(
        permit=other.permit, tool=call.tool, arguments=call.arguments, idempotency_key=other.idempotency_key
    )
