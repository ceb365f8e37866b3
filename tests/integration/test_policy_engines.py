"""Both engines behind one port: the same suite on each, then the same five hundred decisions on the two of them."""

import asyncio
import random
import shutil
import subprocess
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime

import orjson
import pytest
from unit.policy.tenants import ROLES, asked, call, codes, data, embedded, verdict

from remit_contracts.decisions import ACTIONS
from remit_infra.engines import free_port
from remit_policy.engine import EngineError, EngineFailed, EngineTimeout, EngineUnreachable
from remit_policy.opa import OpaEngine
from remit_policy.policies import Policies, base_policies

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
REAL_OPA = pytest.mark.real_opa

HOSTILE = """
package remit.decision

import rego.v1

exploded := count({x |
	some a in numbers.range(1, 90)
	some b in numbers.range(1, 90)
	some c in numbers.range(1, 90)
	some d in numbers.range(1, 90)
	x := ((a * b) + (c * d)) % 7
})

result := {"allow": true, "reasons": [], "obligations": [], "revision": "7"} if {
	input.kind == "bomb"
	exploded > 0
}

denied if to_number(input.text) == 1

result := {"allow": true, "reasons": [], "obligations": [], "revision": "7"} if {
	input.kind == "error"
	not denied
}

result := {"allow": true, "reasons": [], "obligations": [], "revision": "7"} if input.kind == "harmless"
"""


class Opa:
    """A real server on a free port of loopback."""

    def __init__(self):
        self.port = free_port()
        self.process = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        program = shutil.which("opa")
        if not program:
            pytest.skip("no `opa` on the PATH")
        self.process = subprocess.Popen(
            [
                program,
                "run",
                "--server",
                "--addr",
                f"127.0.0.1:{self.port}",
                "--log-level",
                "error",
                "--disable-telemetry",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)


@contextmanager
def opa_server():
    server = Opa()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def opa():
    with opa_server() as server:
        yield server


@asynccontextmanager
async def opa_engine(server, policies=None, documents=None, **options):
    engine = OpaEngine(server.url, **{"deadline_seconds": 1.0, **options})
    try:
        await engine.load(policies or base_policies(), {"acme": data().document} if documents is None else documents)
        yield engine
    finally:
        await engine.close()


@pytest.fixture(params=["embedded", pytest.param("opa", marks=REAL_OPA)])
def engine_with(request):
    """Makes an engine of the kind: `async with engine_with(policies, documents) as engine`."""
    if request.param == "embedded":
        return embedded
    server = request.getfixturevalue("opa")
    return lambda *args, **options: opa_engine(server, *args, **options)


async def test_an_engine_decides_by_roles(engine_with):
    async with engine_with() as engine:
        allowed = await verdict(engine, asked(call(), at=NOW))
        assert (allowed.allow, allowed.revision) == (True, "7")
        assert {o.type: o.properties for o in allowed.obligations} == {
            "mask_fields": {"fields": ["name", "tailnum"]},
            "max_rows": {"limit": 100},
        }
        refused = await verdict(engine, asked(call(), at=NOW, roles=("reader",)))
        assert codes(refused) == ["policy.no_grant", "policy.source_unreadable"]


async def test_an_engine_isolates_tenants(engine_with):
    async with engine_with(None, {"acme": data().document, "globex": data(revision=3).document}) as engine:
        foreign = asked(call(tenant="globex"), at=NOW)
        assert codes(await verdict(engine, foreign)) == ["policy.foreign_tenant"]
        own = asked(call(tenant="globex"), at=NOW, tenant="globex")
        assert (await verdict(engine, own, tenant="globex")).revision == "3"


async def test_an_engine_sees_an_update_whole(engine_with):
    async with engine_with() as engine:
        for revision in range(8, 14):
            await engine.update("acme", data(revision=revision, roles={"analyst": ROLES["reader"]}).document)
            found = await verdict(engine, asked(call(), at=NOW))
            assert (found.allow, found.revision) == (False, str(revision))


async def test_an_engine_that_was_never_told_a_tenant_denies_it(engine_with):
    async with engine_with() as engine:
        request = asked(call(tenant="initech"), at=NOW, tenant="initech")
        assert codes(await verdict(engine, request, tenant="initech")) == ["policy.unknown_tenant"]


async def test_an_engine_probes_by_deciding(engine_with):
    async with engine_with() as engine:
        assert "decided" in await engine.probe()


async def test_a_policy_that_does_not_compile_is_refused_at_the_load(engine_with):
    with pytest.raises(EngineFailed):
        async with engine_with(Policies({"x/x.rego": "package x\n\nallow if {"})):
            pass


@pytest.mark.parametrize("kind", ["embedded", pytest.param("opa", marks=REAL_OPA)])
async def test_a_bomb_ends_at_its_deadline_and_an_error_is_no_silence(kind):
    policies = Policies({"hostile.rego": HOSTILE})
    with opa_server() if kind == "opa" else no_server() as server:
        made = opa_engine(server, policies, {}) if kind == "opa" else embedded(policies, {}, deadline_seconds=1.0)
        async with made as engine:
            with pytest.raises(EngineTimeout):
                await engine.evaluate("acme", b'{"kind":"bomb"}')
            assert (await verdict(engine, b'{"kind":"harmless"}')).allow is True
            with pytest.raises(EngineFailed):  # OPA's default would forget `denied` and allow
                await engine.evaluate("acme", b'{"kind":"error","text":"z"}')
            assert codes(await verdict(engine, b'{"kind":"unheard-of"}')) == ["policy.undefined"]


@contextmanager
def no_server():
    yield None


@pytest.mark.real_opa
async def test_an_opa_that_was_restarted_gets_its_policies_and_data_again():
    with opa_server() as server:
        async with opa_engine(server) as engine:
            assert (await verdict(engine, asked(call(), at=NOW))).allow is True
            server.stop()
            with pytest.raises(EngineUnreachable):
                await engine.evaluate("acme", asked(call(), at=NOW))
            server.start()
            async with asyncio.timeout(20):
                while True:
                    try:
                        found = await verdict(engine, asked(call(), at=NOW))
                        break
                    except EngineUnreachable:
                        await asyncio.sleep(0.02)
            assert (found.allow, found.revision) == (True, "7")


@pytest.mark.real_opa
async def test_while_a_restarted_opa_is_filled_again_nobody_is_denied_what_they_may():
    async def asked_until_answered(engine):
        while True:
            try:
                return await verdict(engine, asked(call(), at=NOW))
            except EngineError:  # away, or busy compiling: no decision, and none that would be recorded as a denial
                await asyncio.sleep(0.005)

    with opa_server() as server:
        async with opa_engine(server) as engine, asyncio.timeout(60):
            for _ in range(5):
                server.stop()
                server.start()
                asking = []
                while len(asking) < 2 or not all(task.done() for task in asking[:2]):
                    asking.append(asyncio.create_task(asked_until_answered(engine)))
                    await asyncio.sleep(0.002)  # one after the other, so that some arrive while it is being filled
                found = await asyncio.gather(*asking)
                assert [codes(verdict) for verdict in found if not verdict.allow] == []


async def test_an_opa_that_is_not_there_is_said_so():
    with pytest.raises(ValueError, match="no OPA address"):
        OpaEngine("127.0.0.1:8181")
    engine = OpaEngine(f"http://127.0.0.1:{free_port()}", load_seconds=0.2)
    try:
        with pytest.raises(EngineUnreachable, match="does not answer"):
            await engine.load(base_policies(), {})
    finally:
        await engine.close()


def some_input(random_):
    """A sensible request, of which up to three parts were then made foreign, odd or absent."""
    pick = random_.choice
    roles = [pick([*ROLES]) for _ in range(random_.randrange(1, 4))]
    tenant = pick(["acme", "acme", "globex"])
    tool, sources = pick([("sql", ["sql"]), ("docs", ["docs"]), ("convert:miles:km", []), ("sql", ["sql", "docs"])])
    found = orjson.loads(asked(call(tool, tenant=tenant, sources=sources), at=NOW, roles=roles, tenant=tenant))
    resource, properties = found["resource"], found["resource"]["properties"]
    changes = [
        lambda: found["action"].update(name=pick([*sorted(ACTIONS), "tool.*", "nothing", ""])),
        lambda: (
            found["action"].update(name="data.read") or resource.update(type="data_source", id=pick(["sql", "docs"]))
        ),
        lambda: resource.update(id=pick(["convert", "convert:", ":", "::", "*", "payroll", "sql:*", 'ü\u2028"', ""])),
        lambda: resource.update(type=pick(["data_source", "agent", "run", "*"])),
        lambda: resource.pop(pick(sorted(resource))),
        lambda: properties.update(tenant=pick(["acme", "initech", "", None, 7])),
        lambda: properties.update(data_sources=pick([None, "sql", [1], {}, [["sql"]], ["payroll"], ["sql", None]])),
        lambda: found["subject"]["properties"].update(active=pick([False, None, 1, "true"])),
        lambda: found["subject"]["properties"].update(roles=pick([[], ["ghost"], ["analyst", "ghost"]])),
        lambda: found["subject"].pop(pick(["type", "id"])),
        lambda: found.pop("context"),
    ]
    for change in random_.sample(changes, pick([0, 0, 1, 1, 2, 3])):
        change()
    return tenant, orjson.dumps(found)


async def outcome(engine, tenant, question):
    try:
        found = await verdict(engine, question, tenant)
    except EngineError as fault:
        return type(fault).__name__
    return found


@pytest.mark.real_opa
async def test_both_engines_agree_on_every_decision(opa):
    random_ = random.Random(20260131)
    documents = {
        "acme": data().document,
        "globex": data(revision=3, roles={"analyst": ROLES["north"], "reader": ROLES["reader"]}).document,
    }
    questions = [some_input(random_) for _ in range(500)]
    async with embedded(None, documents, deadline_seconds=5.0) as one, opa_engine(opa, None, documents) as other:
        allowed = 0
        for tenant, question in questions:
            first, second = await outcome(one, tenant, question), await outcome(other, tenant, question)
            assert first == second, question
            allowed += not isinstance(first, str) and first.allow
        assert 50 < allowed < 450, "the questions no longer cover both answers"
