"""What nobody but a forger sends to a service, on the real bus, from a connection that may say anything.

The server's own permissions stand before this and are attacked elsewhere: here they are as good as gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from fixtures_nats import Bus, seen_by_server
from nats.aio.client import Client

from remit_chassis.requester import Requester
from remit_chassis.service import Service
from remit_chassis.settings import ServiceSettings
from remit_contracts import subjects
from remit_contracts.errors import Unavailable
from remit_contracts.identity import Caller
from remit_contracts.messages import Nothing


class AuditSettings(ServiceSettings):
    service_name = "audit"


class OneKey:
    """A key for everybody: these tests are about requests."""

    def cached(self, tenant: str, user: str) -> bytes:
        return bytes(32)

    async def key(self, tenant: str, user: str) -> bytes:
        return bytes(32)

    def forget(self, tenant: str, user: str) -> None:
        """Nothing is kept."""


@asynccontextmanager
async def listening(bus: Bus) -> AsyncIterator[tuple[list[Caller], Client]]:
    """The audit service's place, taken by one that notes who reached a handler; and the forger's connection."""
    bus.add_anyone()
    service = Service("audit", AuditSettings(home=bus.home.path, nats_url=bus.url), user_keys=OneKey())
    seen: list[Caller] = []

    @service.command("note", Nothing)
    async def note(_: Nothing, caller: Caller) -> dict[str, Any]:
        seen.append(caller)
        return {"noted": True}

    async def hot(payload: bytes, caller: Caller) -> bytes:
        seen.append(caller)
        return payload

    service.hot_rpc("hot", hot)
    await service.start()
    forger = await bus.connect_as_anyone()
    try:
        yield seen, forger
    finally:
        await forger.close()
        await service.shut_down()


async def answered(forger: Client) -> None:
    """Return when everything that the forger sent before has been served: an honest request is served after it."""
    inbox = "_INBOX.acme.u-last.s-1.last"
    heard = await forger.subscribe(inbox)
    await forger.publish(subjects.command("acme", "u-last", "audit", "note"), b"{}", reply=inbox)
    assert orjson.loads((await heard.next_msg(10)).data) == {"noted": True}
    hot_inbox = "_INBOX_SVC.installer.last"
    heard = await forger.subscribe(hot_inbox)
    await forger.publish(subjects.rpc("acme", "u-last", "audit", "hot"), b"x", reply=hot_inbox)
    assert (await heard.next_msg(10)).data == b"x"


NO_IDENTIFIERS = [
    "U-1", "u_1", "-u-1", "u-1-", "u-1\u00a0", "u-1\u200b", "u-1\x00", "u" * 64, "u-1~", "\u0443-1", "u-1/x",
]  # fmt: skip


async def test_a_token_that_is_no_identifier_reaches_no_handler(nats_bus: Bus) -> None:
    async with listening(nats_bus) as (seen, forger):
        for odd in NO_IDENTIFIERS:
            await forger.publish(f"remit.acme.{odd}.cmd.audit.note", b"{}", reply=f"_INBOX.acme.{odd}.s-1.x")
            await forger.publish(f"remit.{odd}.u-1.cmd.audit.note", b"{}", reply=f"_INBOX.{odd}.u-1.s-1.x")
            await forger.publish(f"remit.acme.{odd}.rpc.audit.hot", b"{}", reply="_INBOX_SVC.installer.x")
            await forger.publish("remit.acme.u-1.cmd.audit.note", b"{}", reply=f"_INBOX.acme.u-1.{odd}.x")
        await answered(forger)
        assert {caller.user for caller in seen} == {"u-last"}


REPLIES = [
    "_INBOX.acme.u-2.s-1.x",
    "_INBOX.acme.u-10.s-1.x",
    "_INBOX.acme.u-1x.s-1.x",
    "_INBOX.globex.u-1.s-1.x",
    "_INBOX.acmex.u-1.s-1.x",
    "_INBOX.acme.u-1.s-1",
    "_INBOXX.acme.u-1.s-1.x",
    "_INBOX_SVC.policy.x",
    "remit.acme.u-2.live.run",
    "remit.acme.u-1.evt.audit.0",
    "$JS.API.STREAM.DELETE.EVENTS_acme",
]


async def test_no_reply_subject_but_ones_own_is_answered(nats_bus: Bus) -> None:
    async with listening(nats_bus) as (seen, forger):
        heard = [await forger.subscribe(reply) for reply in REPLIES]
        for reply in REPLIES:
            await forger.publish(subjects.command("acme", "u-1", "audit", "note"), b"{}", reply=reply)
        await answered(forger)
        await seen_by_server(forger)
        assert {caller.user for caller in seen} == {"u-last"}
        assert [subscription.pending_msgs for subscription in heard] == [0] * len(REPLIES)


async def test_no_service_is_made_to_answer_into_a_users_inbox(nats_bus: Bus) -> None:
    async with listening(nats_bus) as (seen, forger):
        replies = ["_INBOX.acme.u-1.s-1.x", "_INBOX_SVCX.installer.x", "_INBOX_SVC", "remit.acme.u-1.live.run.x"]
        heard = [await forger.subscribe(reply) for reply in replies]
        for reply in replies:
            await forger.publish(subjects.rpc("acme", "u-1", "audit", "hot"), b"secret", reply=reply)
        await answered(forger)
        await seen_by_server(forger)
        assert {caller.user for caller in seen} == {"u-last"}
        assert [subscription.pending_msgs for subscription in heard] == [0] * len(replies)


async def test_an_answer_on_another_services_subject_is_no_answer(nats_bus: Bus) -> None:
    """The asker itself must look who answered: here a forger may publish into its inbox."""
    nats_bus.add_anyone()
    async with nats_bus.client("agent-runtime") as runtime:
        forger = await nats_bus.connect_as_anyone()
        asking = Requester(runtime, subjects.service_inbox("agent-runtime"))
        await asking.start()
        honest = await forger.subscribe(subjects.any_request("rpc", "policy", "decide"))
        await seen_by_server(forger)
        answer = await asking.send(subjects.rpc("acme", "u-1", "policy", "decide"), b"{}", timeout_seconds=5)
        question = await honest.next_msg(5)
        await forger.publish(question.reply.replace(".policy.", ".audit."), b"forged")
        await forger.publish(f"{question.reply}0", b"forged")
        await forger.publish(question.reply, b"the answer")
        assert await answer == b"the answer"
        unanswered = await asking.send(subjects.rpc("acme", "u-1", "policy", "decide"), b"{}", timeout_seconds=0.5)
        question = await honest.next_msg(5)
        await forger.publish(question.reply.replace(".policy.", ".audit."), b"forged")
        with pytest.raises(Unavailable):
            await unanswered
        await asking.stop()
        await forger.close()
