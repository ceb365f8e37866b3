"""The policy service on the real bus, with its own nkey: who is answered, what is kept on disk, what a notice does."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from fixtures_nats import seen_by_server
from unit.policy.tenants import call, codes, described

from remit_chassis.permits import PermitVerifier
from remit_contracts import subjects
from remit_contracts.directory import DirectoryNotice, SubjectDescribed
from remit_contracts.errors import Absent, refusal_from
from remit_contracts.fast_decisions import DecisionAnswer
from remit_policy.__main__ import build
from remit_policy.domain import Decision
from remit_policy.policies import base_policies
from remit_policy.settings import PolicySettings


class OneKey:
    """A key for everybody: these tests are about decisions."""

    def cached(self, tenant, user):
        return bytes(32)

    async def key(self, tenant, user):
        return bytes(32)

    def forget(self, tenant, user):
        return None


class Auth:
    """Takes the auth service's place on the bus, with its nkey."""

    def __init__(self, nc):
        self.nc = nc
        self.roles = {"u-1": ("analyst",), "u-2": ("reader",)}
        self.revision = 7
        self.asked = 0

    async def open(self):
        await self.nc.subscribe(subjects.any_request("rpc", "auth", "describe-subject"), cb=self.subject)
        await self.nc.subscribe(subjects.any_request("rpc", "auth", "describe-tenant"), cb=self.tenant)
        await self.nc.flush()

    async def subject(self, message):
        self.asked += 1
        user = message.subject.split(".")[2]
        if user not in self.roles:
            await message.respond(orjson.dumps(Absent("no such user").as_dict()))
            return
        answer = SubjectDescribed(user=user, handle="h", active=True, roles=self.roles[user], revision=self.revision)
        await message.respond(answer.to_bytes())

    async def tenant(self, message):
        assert message.subject.split(".")[2] == "system"
        await message.respond(described(revision=self.revision).to_bytes())

    async def change(self, **roles):
        """Somebody's roles change, and the notice goes out."""
        self.roles.update({user.replace("_", "-"): held for user, held in roles.items()})
        self.revision += 1
        notice = DirectoryNotice(revision=self.revision).model_dump_json().encode()
        await self.nc.publish(subjects.live("acme", "u-1", "directory"), notice)
        await seen_by_server(self.nc)


@asynccontextmanager
async def running(bus):
    """The service, the stand-in for auth, and the runtime's way to ask."""
    async with bus.client("auth") as auth_nc, bus.asking_as("agent-runtime") as runtime:
        auth = Auth(auth_nc)
        await auth.open()
        settings = PolicySettings(home=bus.home.path, nats_url=bus.url, engine="embedded")
        service = build(settings, user_keys=OneKey())
        await service.start()
        await seen_by_server(service.nc)
        try:
            yield service, auth, runtime
        finally:
            await service.shut_down()


@pytest.fixture
async def place(nats_bus):
    async with running(nats_bus) as found:
        yield found


async def ask(runtime, verb, payload, *, tenant="acme", user="u-1"):
    """The answer's bytes, also of a refusal."""
    return await (await runtime.send(subjects.rpc(tenant, user, "policy", verb), payload))


async def ask_as_installer(bus, verb, payload, *, user="u-1"):
    async with bus.client("installer") as nc:
        return (await nc.request(subjects.rpc("acme", user, "policy", verb), payload, timeout=5)).data


async def decide(runtime, request, **subject):
    return DecisionAnswer.from_bytes(await ask(runtime, "decide", request.to_bytes(), **subject))


async def test_an_allowed_call_comes_back_with_a_permit_that_the_public_key_verifies(place, nats_bus):
    service, _, runtime = place
    answer = await decide(runtime, call())
    assert answer.decision is True
    public_key = bytes.fromhex((nats_bus.home.path / "public" / "permit.pub").read_text().strip())
    claims = PermitVerifier(public_key).verify(answer.context.permit, service.clock().timestamp())
    assert (claims.tenant, claims.user, claims.tool) == ("acme", "u-1", "sql")
    assert service.stores.of("acme").head()[0] == 0, "an allowed decision is recorded by its doer"


async def test_a_denial_is_on_disk_before_its_answer_arrives(place):
    service, _, runtime = place
    answer = await decide(runtime, call(user="u-2"), user="u-2")
    assert codes(answer.context) == ["policy.no_grant", "policy.source_unreadable"]
    store = service.stores.of("acme")
    (envelope,) = await store.read(1, 10)
    assert (envelope.topic, envelope.user) == ("policy.Decision.Denied", "u-2")
    assert envelope.originator_id == answer.context.decision_id
    event = await store.decode(envelope)
    assert isinstance(event, Decision.Denied)
    assert event.engine_input == orjson.loads(bytes(answer.context.input))


async def test_a_recorded_denial_is_decided_again_alike(nats_bus):
    async with running(nats_bus) as (service, _, runtime):
        answer = await decide(runtime, call(user="u-2"), user="u-2")
        (envelope,) = await service.stores.of("acme").read(1, 10)
        event = await service.stores.of("acme").decode(envelope)
        question = orjson.dumps({"input": event.engine_input, "bundle_digest": event.bundle_digest})
        again = orjson.loads(await ask_as_installer(nats_bus, "redecide", question, user="u-2"))
        assert again["decision"] is False
        assert [reason["code"] for reason in again["reasons"]] == codes(answer.context)
        assert service.stores.of("acme").head()[0] == 1, "a replay is no decision"


async def test_a_notice_of_the_directory_is_heeded_at_once(place):
    _, auth, runtime = place
    assert (await decide(runtime, call())).decision is True
    await auth.change(u_1=())
    answer = await decide(runtime, call())
    assert (answer.decision, answer.context.data_revision) == (False, "8")
    await auth.change(u_1=("analyst",))
    assert (await decide(runtime, call())).decision is True


async def test_no_question_overtakes_a_notice_that_was_read_before_it(place):
    """Each pair comes in one read of the connection as often as not: both must be handled in the order they came."""
    _, auth, runtime = place
    for turn in range(100):
        await auth.change(u_1=("analyst",) if turn % 2 else ())
        answer = await decide(runtime, call())
        assert (answer.decision, answer.context.data_revision) == (bool(turn % 2), str(8 + turn))


async def test_what_is_known_is_not_asked_for_at_every_decision(place):
    _, auth, runtime = place
    for answer in await asyncio.gather(*(decide(runtime, call()) for _ in range(50))):
        assert answer.decision is True
    assert auth.asked <= 2


async def test_an_unknown_user_is_denied_in_words(place):
    _, _, runtime = place
    answer = await decide(runtime, call(user="u-9"), user="u-9")
    assert codes(answer.context) == ["policy.unknown_subject"]


async def test_a_request_about_another_user_than_the_subjects_is_refused(place):
    _, _, runtime = place
    refusal = refusal_from(orjson.loads(await ask(runtime, "decide", call(user="u-1").to_bytes(), user="u-2")))
    assert refusal.refusal_code == "policy.foreign_subject"
    assert refusal.exit_code == 3


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "request.malformed"),
        (b"{}", "request.malformed"),
        (b"\xff", "request.malformed"),
        (b"[" * 5_000, "request.malformed"),
        (b'{"subject":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "request.malformed"),
        (b" " * (64 * 1024 + 1), "request.too_large"),
    ],
)
async def test_bad_input_is_a_coded_refusal_and_never_a_silence(place, payload, code):
    _, _, runtime = place
    assert refusal_from(orjson.loads(await ask(runtime, "decide", payload))).refusal_code == code


async def test_it_says_what_decides(nats_bus):
    async with running(nats_bus):
        info = orjson.loads(await ask_as_installer(nats_bus, "info", b"{}"))
        assert info == {"engine": "embedded", "bundle_digest": base_policies().digest}


async def test_it_is_ready_only_with_an_engine_that_decides(place):
    service, _, _ = place
    report = await service.health()
    assert report.checks["engine"].ok is True
    for pid in engine_children():
        os.kill(int(pid), signal.SIGKILL)
    report = await service.health()
    assert (report.ready, report.checks["engine"].ok) == (False, False)


async def test_without_an_auth_service_everything_is_denied(nats_bus):
    async with running(nats_bus) as (_, auth, runtime):
        await auth.nc.close()
        answer = await decide(runtime, call())
        assert codes(answer.context) == ["policy.directory_unavailable"]


async def test_stopping_the_service_leaves_no_engine_behind(nats_bus):
    async with running(nats_bus) as (_, _, runtime):
        await decide(runtime, call())
        children = engine_children()
        assert children
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def engine_children():
    """Process ids of this process's engine children."""
    mine = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in mine if b"engine_child" in Path(f"/proc/{pid}/cmdline").read_bytes()]
