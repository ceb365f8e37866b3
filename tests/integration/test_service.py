"""One service on the real bus: what reaches a handler, what is refused, and what a forged message can make it do."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import orjson
import pytest

from remit_chassis import direct
from remit_chassis.doorman import Bounds
from remit_chassis.endpoints import Endpoint
from remit_chassis.service import Service
from remit_chassis.settings import ServiceSettings
from remit_contracts import subjects
from remit_contracts.errors import Denied, Unavailable
from remit_contracts.identity import Caller
from remit_contracts.messages import Command, Nothing


class AuditSettings(ServiceSettings):
    service_name = "audit"


class OneKey:
    """A key for everybody: these tests are about requests."""

    def cached(self, tenant, user):
        return bytes(32)

    async def key(self, tenant, user):
        return bytes(32)

    def forget(self, tenant, user):
        return None


class Echo(Command):
    text: str


@asynccontextmanager
async def running(bus):
    """The audit service's place on the bus, taken by a service that echoes."""
    settings = AuditSettings(home=bus.home.path, nats_url=bus.url)
    service = Service("audit", settings, user_keys=OneKey())
    seen = []

    @service.command("echo", Echo, max_bytes=100)
    async def echo(command, caller):
        seen.append(caller)
        return {"text": command.text, "user": caller.user}

    @service.command("deny", Nothing)
    async def deny(command, caller):
        raise Denied("not you", decision_id="d-1")

    @service.command("break", Nothing)
    async def fail(command, caller):
        raise RuntimeError("canary in a traceback")

    async def hot(payload, caller):
        seen.append(caller)
        return payload

    service.hot_rpc("hot", hot)
    await service.start()
    try:
        yield service, seen
    finally:
        await service.shut_down()


@asynccontextmanager
async def a_users_client(bus):
    """Stands in for a user's client with a connection that may say anything: what the server would refuse is tested
    elsewhere, here it is the guard's turn."""
    nc = await bus.connect_as_anyone()
    try:
        yield nc
    finally:
        await nc.close()


async def ask(nc, subject, payload=b"{}", *, reply="_INBOX.acme.u-1.s-1.x", headers=None, timeout=3):
    """Ask with a reply subject of one's own choosing, and give the answer's JSON."""
    listening = await nc.subscribe(reply)
    await nc.publish(subject, payload, reply=reply, headers=headers)
    try:
        return orjson.loads((await listening.next_msg(timeout)).data)
    finally:
        await listening.unsubscribe()


@pytest.fixture
def open_bus(nats_bus):
    """Our bus, and one more user in its application account who may say anything."""
    nats_bus.add_anyone()
    return nats_bus


async def test_a_command_reaches_its_handler_as_the_user_of_its_subject(open_bus):
    async with running(open_bus) as (_, seen), a_users_client(open_bus) as nc:
        answer = await ask(nc, subjects.command("acme", "u-1", "audit", "echo"), b'{"text": "hi"}')
    assert answer == {"text": "hi", "user": "u-1"}
    assert seen == [Caller("acme", "u-1", "s-1")]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b'{"text": "hi", "user": "u-2"}', "request.malformed"),
        (b'{"text": 3}', "request.malformed"),
        (b"{", "request.malformed"),
        (b'{"text": "' + b"x" * 200 + b'"}', "request.too_large"),
    ],
)
async def test_a_bad_payload_is_refused_with_a_code_and_reaches_no_handler(open_bus, payload, code):
    async with running(open_bus) as (_, seen), a_users_client(open_bus) as nc:
        answer = await ask(nc, subjects.command("acme", "u-1", "audit", "echo"), payload)
    assert answer["error"]["code"] == code
    assert seen == []


async def test_a_handlers_refusal_arrives_whole_and_its_bug_without_a_trace(open_bus):
    async with running(open_bus), a_users_client(open_bus) as nc:
        denied = await ask(nc, subjects.command("acme", "u-1", "audit", "deny"))
        broken = await ask(nc, subjects.command("acme", "u-1", "audit", "break"))
    assert denied["error"] == {
        "code": "policy.denied",
        "reason": "not you",
        "decision_id": "d-1",
        "retry_after_seconds": None,
    }
    assert broken["error"]["code"] == "internal"
    assert "canary" not in str(broken)


@pytest.mark.parametrize("foreign", ["_INBOX.acme.u-2.s-1.x", "_INBOX.acme.u-10.s-1.x", "remit.acme.u-2.live.x"])
async def test_an_answer_never_goes_to_a_foreign_reply_and_the_sender_is_told_on_their_own_subject(open_bus, foreign):
    async with running(open_bus) as (_, seen), a_users_client(open_bus) as nc:
        victim = await nc.subscribe(foreign)
        told = await nc.subscribe(subjects.live("acme", "u-1", "refusal"))
        await nc.publish(subjects.command("acme", "u-1", "audit", "echo"), b'{"text": "hi"}', reply=foreign)
        refusal = orjson.loads((await told.next_msg(3)).data)
        assert refusal["error"]["code"] == "request.foreign_reply"
        assert seen == []
        assert victim.pending_msgs == 0


async def test_forged_headers_change_nothing_and_none_comes_back(open_bus):
    forged = {
        "Nats-Request-Info": "{}",
        "Status": "503",
        "Nats-Rollup": "all",
        "correlation_id": "canary",
        "X-Remit": "1",
    }
    async with running(open_bus) as (_, seen), a_users_client(open_bus) as nc:
        listening = await nc.subscribe("_INBOX.acme.u-1.s-1.x")
        await nc.publish(
            subjects.command("acme", "u-1", "audit", "echo"),
            b'{"text": "hi"}',
            reply="_INBOX.acme.u-1.s-1.x",
            headers=forged,
        )
        answer = await listening.next_msg(3)
    assert orjson.loads(answer.data)["text"] == "hi"
    assert not answer.headers
    assert seen == [Caller("acme", "u-1", "s-1")]


async def test_a_user_cannot_have_a_hot_rpc_answered_into_a_user_inbox(open_bus):
    async with running(open_bus) as (_, seen), a_users_client(open_bus) as nc:
        await nc.publish(subjects.rpc("acme", "u-1", "audit", "hot"), b"x", reply="_INBOX.acme.u-1.s-1.x")
        await nc.publish(subjects.rpc("acme", "u-1", "audit", "hot"), b"y", reply="_INBOX_SVC.installer.1")
        async with asyncio.timeout(3):
            while not seen:
                await asyncio.sleep(0.01)
    assert seen == [Caller("acme", "u-1")]


async def test_a_user_over_the_bound_of_commands_at_a_time_is_refused_and_others_are_answered(open_bus):
    most = Bounds().of_one_user
    async with running(open_bus) as (service, _), a_users_client(open_bus) as nc:
        let_go = asyncio.Event()

        async def wait(payload, caller):
            await let_go.wait()
            return payload

        door = service._doorman.door(Endpoint("cmd", "audit", "wait", wait))
        await direct.subscribe(service.nc, subjects.any_request("cmd", "audit", "wait"), door)
        await service.nc.flush()
        answers = await nc.subscribe("_INBOX.acme.u-1.s-1.*")
        for number in range(most + 3):
            reply = f"_INBOX.acme.u-1.s-1.{number}"
            await nc.publish(subjects.command("acme", "u-1", "audit", "wait"), b"{}", reply=reply)
        for number in range(most, most + 3):
            refused = await answers.next_msg(5)
            assert refused.subject == f"_INBOX.acme.u-1.s-1.{number}"
            assert orjson.loads(refused.data)["error"]["code"] == "overloaded.requests"
        other = await ask(
            nc, subjects.command("acme", "u-2", "audit", "echo"), b'{"text": "hi"}', reply="_INBOX.acme.u-2.s-1.x"
        )
        assert other["text"] == "hi"
        # One user's bound is one for all verbs of the service.
        refused = await ask(
            nc, subjects.command("acme", "u-1", "audit", "echo"), b'{"text": "hi"}', reply="_INBOX.acme.u-1.s-2.x"
        )
        assert refused["error"]["code"] == "overloaded.requests"
        let_go.set()
        assert [(await answers.next_msg(5)).data for _ in range(most)] == [b"{}"] * most


async def test_health_is_a_write_that_succeeded(open_bus):
    async with running(open_bus) as (service, _), a_users_client(open_bus) as nc:
        report = await ask(nc, subjects.rpc("platform", "system", "audit", "health"), reply="_INBOX_SVC.installer.1")
        assert report["ready"] is True
        assert report["checks"]["store"]["ok"] is True

        async def no_space():
            raise Unavailable("no space left on device")

        service.check("store", no_space)
        report = await ask(nc, subjects.rpc("platform", "system", "audit", "health"), reply="_INBOX_SVC.installer.1")
        assert report["ready"] is False
        assert "no space" in report["checks"]["store"]["detail"]


async def test_a_contradicted_tenant_is_refused_on_every_verb_and_no_other_is(open_bus):
    async with running(open_bus) as (service, seen), a_users_client(open_bus) as nc:
        await service.stores.of("acme").compared()
        service.stores.of("acme").contradict("its stream holds another log")
        for verb, payload in (("echo", b'{"text": "hi"}'), ("deny", b"{}")):
            refused = await ask(nc, subjects.command("acme", "u-1", "audit", verb), payload)
            assert refused["error"]["code"] == "tampered.store"
        for verb, payload in (("hot", b"x"), ("republish", b'{"first": 1, "last": 1}')):
            to_service = "_INBOX_SVC.installer.1"
            refused = await ask(nc, subjects.rpc("acme", "u-1", "audit", verb), payload, reply=to_service)
            assert refused["error"]["code"] == "tampered.store"
        assert seen == []
        other = await ask(
            nc, subjects.command("globex", "u-1", "audit", "echo"), b'{"text": "hi"}', reply="_INBOX.globex.u-1.s-1.x"
        )
        assert other["text"] == "hi"
        # Whoever compares the copies is still told where this one ends, and whoever looks after it what is wrong.
        head = await ask(nc, subjects.rpc("acme", "system", "audit", "log-head"), reply="_INBOX_SVC.installer.1")
        assert head["last_notification_id"] == 0
        report = await ask(nc, subjects.rpc("platform", "system", "audit", "health"), reply="_INBOX_SVC.installer.1")
        assert report["ready"] is True
        assert report["contradicted"] == {"acme": "its stream holds another log"}
        service.stores.of("platform").contradict("its stream holds another log")
        report = await ask(nc, subjects.rpc("platform", "system", "audit", "health"), reply="_INBOX_SVC.installer.1")
        assert (report["ready"], report["checks"]["store"]["code"]) == (False, "tampered.store")


async def test_a_question_nobody_answers_is_unavailable_at_once(open_bus):
    async with running(open_bus) as (service, _):
        began = datetime.now(UTC)
        with pytest.raises(Unavailable, match="nobody answers"):
            await service.ask("acme", "u-1", "policy", "decide")
        assert (datetime.now(UTC) - began).total_seconds() < 3


async def test_a_service_that_is_told_to_stop_before_it_is_ready_never_says_that_it_is(nats_bus, monkeypatch):
    announced, looked = [], asyncio.Event()
    monkeypatch.setattr("remit_chassis.readiness.announce_ready", lambda: announced.append("ready"))
    service = Service("audit", AuditSettings(home=nats_bus.home.path, nats_url=nats_bus.url), user_keys=OneKey())

    async def unfit():
        looked.set()
        raise Unavailable("not yet")

    service.check("unfit", unfit)
    async with asyncio.timeout(30):
        living = asyncio.ensure_future(service._live())
        await looked.wait()
        service.stop()
        await living
    assert announced == []
