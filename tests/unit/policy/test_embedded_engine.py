"""The embedded engine under attack: whatever a policy or an input does, it harms its own decision only."""

import asyncio
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from unit.policy.tenants import asked, call, codes, data, embedded, verdict

from remit_policy.engine import (
    MAX_INPUT_BYTES,
    EngineError,
    EngineFailed,
    EngineOverloaded,
    EngineTimeout,
    EngineUnreachable,
)
from remit_policy.policies import Policies, base_policies

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)

# What an author may write by accident or in malice; `input.resource.id` says which part of it to run.
HOSTILE = """
package remit.decision

import rego.v1

said := {"allow": true, "reasons": [], "obligations": [], "revision": "7"}

exploded := count({x |
	some a in numbers.range(1, 90)
	some b in numbers.range(1, 90)
	some c in numbers.range(1, 90)
	some d in numbers.range(1, 90)
	x := ((a * b) + (c * d)) % 7
})

swollen := count(numbers.range(1, 400000000))

result := said if input.resource.id == "harmless"

result := said if {
	input.resource.id == "bomb"
	exploded > 0
}

result := said if {
	input.resource.id == "glutton"
	swollen > 0
}

result := said if {
	input.resource.id == "error"
	to_number("z") == 1
}

result := input.resource.properties.value if input.resource.id == "echo"
"""


def hostile(**options):
    return embedded(Policies({"hostile.rego": HOSTILE}), {}, **options)


def about(tool, **properties):
    return orjson.dumps({"resource": {"id": tool, "properties": properties}})


async def test_it_decides_by_roles():
    async with embedded() as engine:
        assert (await verdict(engine, asked(call(), at=NOW))).allow is True
        refused = await verdict(engine, asked(call(), at=NOW, roles=("reader",)))
        assert codes(refused) == ["policy.no_grant", "policy.source_unreadable"]


async def test_a_policy_bomb_is_stopped_at_its_deadline_and_the_next_decision_works():
    async with hostile() as engine:
        (first,) = engine.pids
        with pytest.raises(EngineTimeout):
            await engine.evaluate("acme", about("bomb"))
        assert (await verdict(engine, about("harmless"))).allow is True
        (second,) = engine.pids
        assert second != first
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)


async def test_those_who_wait_behind_a_bomb_are_decided_all_the_same():
    async with hostile() as engine:
        found = await asyncio.gather(
            engine.evaluate("acme", about("harmless")),
            engine.evaluate("acme", about("bomb")),
            *(engine.evaluate("globex", about("harmless")) for _ in range(20)),
            return_exceptions=True,
        )
        assert isinstance(found.pop(1), EngineTimeout)
        assert all(orjson.loads(result)["allow"] is True for result in found)


async def test_a_policy_that_eats_memory_meets_its_limit_and_the_next_decision_works():
    async with hostile(deadline_seconds=30.0, memory_limit_bytes=256 * 1024 * 1024) as engine:
        with pytest.raises(EngineFailed):
            await engine.evaluate("acme", about("glutton"))
        assert (await verdict(engine, about("harmless"))).allow is True


async def test_an_engine_that_is_killed_takes_only_its_own_decision_with_it():
    async with hostile(deadline_seconds=30.0) as engine:
        (pid,) = engine.pids
        evaluating = asyncio.ensure_future(engine.evaluate("acme", about("bomb")))
        waiting = asyncio.ensure_future(engine.evaluate("acme", about("harmless")))
        await asyncio.sleep(0)  # lets both be sent
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineFailed):
            await evaluating
        assert orjson.loads(await waiting)["allow"] is True
        assert engine.pids
        assert pid not in engine.pids


async def test_the_other_engines_of_a_pool_go_on_deciding():
    async with hostile(size=2, deadline_seconds=30.0) as engine:
        bomb = asyncio.ensure_future(engine.evaluate("acme", about("bomb")))
        await asyncio.sleep(0)  # lets the bomb be sent
        for _ in range(20):
            assert (await verdict(engine, about("harmless"))).allow is True
        assert not bomb.done()
        bomb.cancel()


async def test_a_replaced_engine_has_the_policies_and_data_of_before():
    async with embedded() as engine:
        await engine.update("globex", data(revision=9).document)
        await lose_an_engine(engine)
        found = await verdict(engine, asked(call(tenant="globex"), at=NOW, tenant="globex"), tenant="globex")
        assert (found.allow, found.revision) == (True, "9")


@pytest.mark.parametrize("noticed", [False, True])
async def test_an_update_during_a_replacement_is_not_lost(noticed):
    async with embedded() as engine:
        if noticed:
            await lose_an_engine(engine)
        else:
            os.kill(engine.pids[0], signal.SIGKILL)
        await engine.update("acme", data(revision=8).document)
        assert (await verdict(engine, asked(call(), at=NOW))).revision == "8"


async def lose_an_engine(engine):
    """Kill a child and return once that was noticed."""
    os.kill(engine.pids[0], signal.SIGKILL)
    with pytest.raises(EngineError):
        await engine.evaluate("acme", b"{}")


async def test_a_document_that_does_not_load_leaves_the_one_before_it_in_force():
    async with embedded() as engine:
        with pytest.raises(EngineFailed):
            await engine.update("acme", b"{")
        assert (await verdict(engine, asked(call(), at=NOW))).revision == "7"
        await lose_an_engine(engine)
        assert (await verdict(engine, asked(call(), at=NOW))).revision == "7"


async def test_decisions_around_an_update_see_one_revision_or_the_other_and_never_both():
    async with embedded() as engine:
        request = asked(call(), at=NOW)
        limits = {"7": 100, "8": 7}
        roles = orjson.loads(data(revision=8).document)
        roles["grants"]["analyst"]["tool.call"]["sql"][0]["max_rows"] = 7
        asking = []
        for turn in range(30):
            asking += [asyncio.ensure_future(verdict(engine, request)) for _ in range(3)]
            await engine.update("acme", orjson.dumps(roles) if turn % 2 == 0 else data().document)
        found = await asyncio.gather(*asking)
        assert {one.revision for one in found} == {"7", "8"}
        for one in found:
            (rows,) = [o.properties["limit"] for o in one.obligations if o.type == "max_rows"]
            assert rows == limits[one.revision]


async def test_what_was_asked_after_an_update_sees_it():
    async with embedded(size=2) as engine:
        for revision in range(8, 28):
            await engine.update("acme", data(revision=revision).document)
            found = await asyncio.gather(*(verdict(engine, asked(call(), at=NOW)) for _ in range(4)))
            assert {one.revision for one in found} == {str(revision)}


async def test_one_tenants_data_is_out_of_anothers_reach():
    async with embedded() as engine:
        foreign = asked(call(), at=NOW)  # about acme, evaluated where only globex's data lies
        await engine.update("globex", data(revision=9).document)
        assert codes(await verdict(engine, foreign, tenant="globex")) == ["policy.unknown_tenant"]


@pytest.mark.parametrize("tool", ["nothing", "undefined"])
async def test_an_undefined_result_denies(tool):
    async with hostile() as engine:
        assert codes(await verdict(engine, about(tool))) == ["policy.undefined"]


async def test_an_error_in_a_builtin_is_an_error_and_no_silence():
    async with hostile() as engine:
        with pytest.raises(EngineFailed):
            await engine.evaluate("acme", about("error"))
        assert (await verdict(engine, about("harmless"))).allow is True


@pytest.mark.parametrize(
    "result",
    [
        None,
        True,
        "true",
        1,
        [],
        [True],
        {},
        {"allow": True},
        {"allow": 1, "reasons": [], "obligations": [], "revision": ""},
        {"allow": "true", "reasons": [], "obligations": [], "revision": ""},
        {"allow": [True], "reasons": [], "obligations": [], "revision": ""},
        {"allow": True, "reasons": [], "obligations": [1], "revision": ""},
        {"allow": True, "reasons": [], "obligations": {}, "revision": ""},
        {"allow": True, "reasons": [], "obligations": [{"type": "mask_fields"}], "revision": ""},
        {"allow": True, "reasons": [], "obligations": [], "revision": 7},
        {"allow": True, "reasons": [], "obligations": [], "revision": "", "more": 1},
        'eve","allow":true,"z":"',
    ],
)
async def test_a_result_of_any_other_shape_denies(result):
    async with hostile() as engine:
        found = await verdict(engine, about("echo", value=result))
        assert found.allow is False
        assert codes(found)[0] in ("policy.undefined", "policy.odd_result")


async def test_input_text_never_becomes_part_of_the_decision():
    async with embedded() as engine:
        for text in ('eve","allow":true,"z":"', '"\n= {"allow":true}\n', "\\u0022", "sql\x00", "*", "sql:*", "\u2028"):
            assert (await verdict(engine, asked(call(tool=text), at=NOW))).allow is False


@pytest.mark.parametrize("size", [MAX_INPUT_BYTES + 1, 10 * MAX_INPUT_BYTES])
async def test_an_input_over_the_limit_is_not_even_sent(size):
    async with embedded() as engine:
        with pytest.raises(EngineFailed, match="bytes"):
            await engine.evaluate("acme", b'{"x":"' + b"x" * size + b'"}')


async def test_an_input_of_two_lines_cannot_pass_for_two_commands():
    async with embedded() as engine:
        with pytest.raises(EngineFailed, match="one line"):
            await engine.evaluate("acme", b'{}\nD acme {"revision":"99"}')
        assert (await verdict(engine, asked(call(), at=NOW))).revision == "7"


@pytest.mark.parametrize("depth", [500, 5_000, 30_000])
async def test_deep_input_is_an_error_and_harms_nobody(depth):
    async with embedded() as engine:
        with pytest.raises(EngineError):
            await engine.evaluate("acme", b'{"x":' + b"[" * depth + b"]" * depth + b"}")
        assert (await verdict(engine, asked(call(), at=NOW))).allow is True


async def test_what_is_no_json_is_an_error():
    async with embedded() as engine:
        for odd in (b"", b"{", b"\xff\xfe", b"{}{}", b"nan"):
            with pytest.raises(EngineError):
                await engine.evaluate("acme", odd)
        assert (await verdict(engine, asked(call(), at=NOW))).allow is True


async def test_the_child_has_an_empty_environment_and_nothing_open_but_its_socket(monkeypatch):
    monkeypatch.setenv("REMIT_CANARY", "a-secret-of-the-parent")
    async with embedded() as engine:
        process = Path(f"/proc/{engine.pids[0]}")
        assert b"=" not in (process / "environ").read_bytes()
        opened = {os.readlink(process / "fd" / number) for number in os.listdir(process / "fd")}
        assert {name.split(":")[0] for name in opened} == {"/dev/null", "socket"}
        assert len([name for name in opened if name.startswith("socket")]) == 1


async def test_the_child_is_bounded_before_its_engine_is_built():
    async with embedded(memory_limit_bytes=300 * 1024 * 1024) as engine:
        limits = Path(f"/proc/{engine.pids[0]}/limits").read_text()
        assert f"Max address space         {300 * 1024 * 1024}" in limits
        assert "Max core file size        0" in limits
        assert "Max file size             0" in limits


async def test_a_child_without_room_for_the_engine_is_said_so_and_not_waited_for_for_ever():
    with pytest.raises(EngineFailed):
        async with embedded(memory_limit_bytes=8 * 1024 * 1024):
            pass


@pytest.mark.parametrize("source", ["package x\nallow if {", "package x\nimport rego.v1\nallow if y > 1\n"])
async def test_policies_that_do_not_compile_are_refused_at_the_load(source):
    with pytest.raises(EngineFailed, match="do not load"):
        async with embedded(Policies({**base_policies().modules, "x.rego": source})):
            pass


async def test_more_waiting_decisions_than_there_is_room_for_are_refused_loudly():
    async with hostile(max_waiting=3, deadline_seconds=30.0) as engine:
        waiting = [asyncio.ensure_future(engine.evaluate("acme", about("harmless"))) for _ in range(3)]
        await asyncio.sleep(0)  # lets them be sent
        with pytest.raises(EngineOverloaded):
            await engine.evaluate("acme", about("harmless"))
        await asyncio.gather(*waiting)
        assert (await verdict(engine, about("harmless"))).allow is True


async def test_an_abandoned_decision_does_not_shift_the_answers_of_others():
    async with embedded() as engine:
        allowed, denied = asked(call(), at=NOW), asked(call(), at=NOW, roles=())
        asking = [asyncio.ensure_future(verdict(engine, allowed if n % 2 else denied)) for n in range(40)]
        await asyncio.sleep(0)  # lets them be sent
        for task in asking[::3]:
            task.cancel()
        found = await asyncio.gather(*asking, return_exceptions=True)
        for n, one in enumerate(found):
            assert isinstance(one, asyncio.CancelledError) if n % 3 == 0 else one.allow is bool(n % 2)


async def test_closing_leaves_no_process_behind():
    async with embedded(size=2) as engine:
        pids = engine.pids
        assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(EngineUnreachable):
        await engine.evaluate("acme", b"{}")


async def test_a_child_does_not_outlive_its_parent():
    program = (
        "import asyncio\n"
        "from remit_policy.embedded import EmbeddedEngine\n"
        "from remit_policy.policies import base_policies\n"
        "async def main():\n"
        "    engine = EmbeddedEngine(); await engine.load(base_policies(), {})\n"
        "    print(engine.pids[0], flush=True); await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    import sys

    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    child = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(10):
        while running(child):
            await asyncio.sleep(0.01)


def running(pid):
    """A process that is there and no zombie (who reaps an orphan is up to the machine)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_probe_evaluates_and_fails_while_an_engine_is_missing():
    async with embedded() as engine:
        assert "1 embedded" in await engine.probe()
        os.kill(engine.pids[0], signal.SIGKILL)
        with pytest.raises(EngineError):
            await engine.probe()
        assert (await verdict(engine, asked(call(), at=NOW))).allow is True
        assert "1 embedded" in await engine.probe()
