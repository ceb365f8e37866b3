"""What the permissions are for, on the real server: relays, jobs, audit, questions and answers, callout, streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fixtures_nats import Bus, seen_by_server
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import APIError, BadRequestError

from remit_chassis.nkeys import SignKey, XKey, decode_claims, encode_claims
from remit_chassis.requester import Requester
from remit_chassis.streams import ask_jetstream, check_stream, require_stream, stream_info
from remit_contracts import subjects
from remit_contracts.errors import Tampered, Unavailable
from remit_infra.nats import CALLOUT_ISSUER, CALLOUT_XKEY
from remit_infra.streams import configuration, ensure_stream, ensure_streams

EVENT = subjects.event("acme", "u-1", "policy", "0" * 32)


@pytest.fixture
async def bus(nats_bus: Bus) -> Bus:
    """A bus with the streams of one tenant."""
    await ensure_streams(nats_bus.home, nats_bus.url, ["acme"])
    return nats_bus


async def test_a_relay_publishes_and_reads_its_last_message_back(bus: Bus) -> None:
    async with bus.client("policy") as nc:
        stored = await nc.jetstream().publish(EVENT, b"sealed", headers={"Nats-Msg-Id": "m-1"})
        last = await nc.jetstream().get_last_msg("EVENTS_acme", subjects.events_of_service("acme", "policy"))
        assert (stored.stream, last.subject, last.data) == ("EVENTS_acme", EVENT, b"sealed")
        assert (await require_stream(nc, "EVENTS_acme"))["state"]["messages"] == 1


async def test_a_job_is_taken_once_through_the_runtimes_own_durable(bus: Bus) -> None:
    async with bus.client("agent-runtime") as nc:
        js = nc.jetstream()
        await js.publish(subjects.job("acme", "u-1", "analyst"), b"{}")
        durable = ConsumerConfig(
            durable_name="agent-runtime", filter_subject=subjects.RUNS_SUBJECTS, ack_policy=AckPolicy.EXPLICIT
        )
        await js.add_consumer("RUNS", durable)
        jobs = await js.pull_subscribe_bind(durable="agent-runtime", stream="RUNS")
        (job,) = await jobs.fetch(1, timeout=5)
        await job.in_progress()
        await job.ack_sync()
        assert (await js.consumer_info("RUNS", "agent-runtime")).ack_floor.stream_seq == 1
        assert (await require_stream(nc, "RUNS"))["state"]["messages"] == 0
        assert await bus.refused(nc) == []


async def test_audit_follows_every_tenant_and_takes_no_job(bus: Bus) -> None:
    async with bus.client("policy") as policy:
        await policy.jetstream().publish(EVENT, b"sealed")
    async with bus.client("audit") as nc:
        js = nc.jetstream()
        assert sorted((await ask_jetstream(nc, "STREAM.NAMES"))["streams"]) == ["EVENTS_acme", "RUNS"]
        await js.add_consumer("EVENTS_acme", ConsumerConfig(durable_name="audit", ack_policy=AckPolicy.EXPLICIT))
        events = await js.pull_subscribe_bind(durable="audit", stream="EVENTS_acme")
        (event,) = await events.fetch(1, timeout=5)
        await event.ack_sync()
        assert (event.subject, event.data) == (EVENT, b"sealed")
        assert await bus.refused(nc) == []
        durable = json.dumps({"stream_name": "RUNS", "config": {"durable_name": "audit", "ack_policy": "explicit"}})
        await nc.publish("$JS.API.CONSUMER.DURABLE.CREATE.RUNS.audit", durable.encode())
        assert len(await bus.refused(nc)) == 1


async def test_an_answer_reaches_the_one_who_may_ask(bus: Bus) -> None:
    async with bus.client("policy") as policy, bus.client("agent-runtime") as runtime:

        async def decide(message: Msg) -> None:
            await message.respond(b"yes")

        await policy.subscribe(subjects.any_request("rpc", "policy", "decide"), queue="policy", cb=decide)
        await seen_by_server(policy)
        asking = Requester(runtime, subjects.service_inbox("agent-runtime"))
        await asking.start()
        assert await asking.ask(subjects.rpc("acme", "u-1", "policy", "decide"), b"{}") == b"yes"
        await asking.stop()


async def test_an_answer_is_taken_from_the_one_who_was_asked_and_from_nobody_else(bus: Bus) -> None:
    async with bus.client("audit") as audit, bus.client("agent-runtime") as runtime:
        asking = Requester(runtime, subjects.service_inbox("agent-runtime"))
        await asking.start()
        asked = await runtime.subscribe("_INBOX_SVC.agent-runtime.audit.1")
        answer = await asking.send(subjects.rpc("acme", "u-1", "policy", "decide"), b"{}", timeout_seconds=1)
        await audit.publish("_INBOX_SVC.agent-runtime.policy.1", b"forged")
        assert "_inbox_svc.agent-runtime.policy.1" in str(await bus.refused(audit))
        await runtime.publish("_INBOX_SVC.agent-runtime.audit.1", b"forged")  # as if audit might answer the runtime
        with pytest.raises(Unavailable):
            await answer
        assert asked.subject
        await asking.stop()


async def test_a_reply_subject_chosen_by_the_asker_gives_no_right_to_publish_there(bus: Bus) -> None:
    """The server would lend the right with `allow_responses`: a service taken over could forge another's events."""
    async with bus.client("agent-runtime") as accomplice, bus.client("policy") as policy:
        heard = await policy.subscribe(subjects.any_request("rpc", "policy", "decide"))
        await seen_by_server(policy)
        forged = subjects.event("acme", "u-1", "audit", "0" * 32)
        await accomplice.publish(subjects.rpc("acme", "u-1", "policy", "decide"), b"{}", reply=forged)
        message = await heard.next_msg(timeout=5)
        await message.respond(b"forged")
        assert forged in str(await bus.refused(policy))
        info = await require_stream(policy, "EVENTS_acme")
    assert info["state"]["messages"] == 0


@pytest.mark.parametrize("call", ["DELETE", "UPDATE", "PURGE", "CREATE"])
@pytest.mark.parametrize("service", subjects.SERVICES)
async def test_no_service_changes_a_stream(shared_nats_bus: Bus, service: str, call: str) -> None:
    await ensure_streams(shared_nats_bus.home, shared_nats_bus.url, ["acme"])
    async with shared_nats_bus.client(service) as nc:
        await nc.publish(f"$JS.API.STREAM.{call}.EVENTS_acme", b"{}")
        assert len(await shared_nats_bus.refused(nc)) == 1
        await require_stream(nc, "EVENTS_acme")


async def test_the_runtimes_durable_cannot_be_deleted_by_anybody(bus: Bus) -> None:
    for user in (*subjects.SERVICES, "installer"):
        async with bus.client(user) as nc:
            await nc.publish("$JS.API.CONSUMER.DELETE.RUNS.agent-runtime", b"")
            assert len(await bus.refused(nc)) == 1


async def test_no_event_can_be_deleted_or_purged_even_by_the_installer(bus: Bus) -> None:
    async with bus.client("policy") as nc:
        await nc.jetstream().publish(EVENT, b"sealed")
    async with bus.client("installer") as nc:
        softened = {**configuration("EVENTS_acme"), "deny_delete": False, "deny_purge": False}
        answer = await ask_jetstream(nc, "STREAM.UPDATE.EVENTS_acme", softened)
        assert answer["error"]["code"] == 500
        assert check_stream((await stream_info(nc, "EVENTS_acme")) or {}) == []


async def test_a_message_that_asks_for_rollup_or_an_end_is_not_stored(bus: Bus) -> None:
    async with bus.client("policy") as nc:
        js = nc.jetstream()
        await js.publish(EVENT, b"first")
        for header in ({"Nats-Rollup": "all"}, {"Nats-TTL": "1s"}, {"Nats-Schedule": "@at 2030-01-01T00:00:00Z"}):
            with pytest.raises(APIError):
                await js.publish(EVENT, b"second", headers=header)
        assert (await require_stream(nc, "EVENTS_acme"))["state"]["messages"] == 1


async def test_making_the_streams_again_changes_nothing(nats_bus: Bus) -> None:
    made = await ensure_streams(nats_bus.home, nats_bus.url, ["acme", "globex"])
    assert made == ["RUNS", "EVENTS_acme", "EVENTS_globex"]
    assert await ensure_streams(nats_bus.home, nats_bus.url, ["acme", "globex"]) == []
    async with nats_bus.client("installer") as nc:
        assert await ensure_stream(nc, "EVENTS_third") is True
        assert await ensure_stream(nc, "EVENTS_third") is False


@pytest.mark.parametrize(
    "changed",
    [
        {"allow_rollup_hdrs": True, "deny_purge": False},
        {"allow_msg_ttl": True},
        {"allow_direct": True},
        {"deny_delete": False},
        {"deny_purge": False},
        {"discard": "old"},
        {"max_age": 3600 * 10**9},
        {"storage": "memory"},
        {"max_msgs_per_subject": 1},
        {"subjects": ["remit.acme.*.evt.>", "remit.acme.*.cmd.>"]},
        {"republish": {"src": ">", "dest": "elsewhere.>"}},
    ],
    ids=lambda changed: next(iter(changed)),
)
async def test_a_stream_that_is_not_as_it_must_be_is_found_and_never_repaired(
    nats_bus: Bus, changed: dict[str, Any]
) -> None:
    async with nats_bus.client("installer") as nc:
        made = await ask_jetstream(nc, "STREAM.CREATE.EVENTS_acme", {**configuration("EVENTS_acme"), **changed})
        assert "error" not in made
        for look in (ensure_stream, require_stream):
            with pytest.raises(Tampered) as found:
                await look(nc, "EVENTS_acme")
            assert all(setting in found.value.reason for setting in changed)
        with pytest.raises(Unavailable, match="does not exist"):
            await require_stream(nc, "EVENTS_globex")


async def test_the_callout_lets_in_whom_it_signs_and_its_user_can_do_nothing_else(nats_bus: Bus) -> None:
    issuer = SignKey.read(nats_bus.home.secrets / f"{CALLOUT_ISSUER}.nk")
    sealing = XKey.read(nats_bus.home.secrets / f"{CALLOUT_XKEY}.nk")

    async def authorize(message: Msg) -> None:
        server = (message.headers or {})["Nats-Server-Xkey"]
        asked = decode_claims(sealing.open(message.data, server).decode(), "server")["nats"]
        answer: dict[str, Any] = {"type": "authorization_response", "version": 2}
        if asked["connect_opts"].get("auth_token") == "good":
            rights = {"pub": {"allow": ["remit.acme.u-1.cmd.>"]}, "sub": {"allow": ["_INBOX.acme.u-1.s-1.>"]}}
            user = {"type": "user", "version": 2, "subs": 50, "data": -1, "payload": -1, **rights}
            claims = {"sub": asked["user_nkey"], "aud": "APP", "name": "acme/u-1", "nats": user}
            answer["jwt"] = encode_claims(issuer, claims)
        else:
            answer["error"] = "not signed in"
        signed = encode_claims(issuer, {"sub": asked["user_nkey"], "aud": asked["server_id"]["id"], "nats": answer})
        await message.respond(sealing.seal(signed.encode(), server))

    async with nats_bus.client("auth-callout") as callout:
        await callout.subscribe(subjects.AUTH_CALLOUT, queue="auth", cb=authorize)
        await seen_by_server(callout)
        with pytest.raises((Error, TimeoutError)):
            await nats_bus.connect(token="bad")
        nats_bus.violations.clear()
        client = await nats_bus.connect(token="good", inbox_prefix="_INBOX.acme.u-1.s-1")
        await client.publish("remit.acme.u-1.cmd.auth.whoami", b"{}")
        assert await nats_bus.refused(client) == []
        await client.publish("remit.acme.u-2.cmd.auth.whoami", b"{}")
        assert len(await nats_bus.refused(client)) == 1
        await client.close()


async def test_the_streams_outlive_a_killed_server(bus: Bus) -> None:
    async with bus.client("policy") as nc:
        await nc.jetstream().publish(EVENT, b"sealed")
    bus.stop(9)
    bus.start()
    async with bus.client("policy") as nc:
        assert (await nc.jetstream().get_last_msg("EVENTS_acme", EVENT)).data == b"sealed"
        with pytest.raises(BadRequestError):
            await nc.jetstream().publish(EVENT, b"x", headers={"Nats-Expected-Last-Sequence": "7"})
