"""Cutting users off and counting their connections, by the service as it runs, on a real bus server."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats.errors
import nkeys
import orjson
import pytest
from fixtures_nats import Bus, seen_by_server
from integration.auth_platform import Platform
from nats.aio.client import Client
from nats.aio.msg import Msg

from remit.client import connect
from remit_auth.live_connections import LiveConnections
from remit_auth.message_rates import Listed, MessageRates
from remit_auth.settings import AuthSettings
from remit_auth.system_account import SystemAccount
from remit_chassis import direct
from remit_chassis.nkeys import SignKey
from remit_contracts import subjects
from remit_contracts.errors import NotSignedIn
from remit_contracts.subjects import SERVICES

CAP = 3


class Connected:
    """A client of a user's, and what happened to it; it comes back by itself as long as the server lets it."""

    def __init__(self) -> None:
        self.nc: Client
        self.issued: dict[str, Any]
        self.cut = asyncio.Event()
        self.shut_out = asyncio.Event()
        self.faults: list[str] = []

    async def on_cut(self) -> None:
        self.cut.set()

    async def on_end(self) -> None:
        self.shut_out.set()

    async def on_fault(self, fault: Exception) -> None:
        self.faults.append(str(fault))
        if "authorization violation" in str(fault).lower() and self.nc._transport:
            self.nc._transport.close()  # type: ignore[no-untyped-call]  # the library leaves each attempt's socket open

    async def lives(self) -> bool:
        """Whether the server still answers on the same connection."""
        await self.nc.flush()
        return self.nc.is_connected and not self.cut.is_set()


class Users(Platform):
    """ann and bob of acme, gus of globex."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self.settings = AuthSettings(home=bus.home.path, nats_url=bus.url, connections_per_user=CAP)

    async def seed(self) -> None:
        await super().seed()
        await self.ok("register-user", {"handle": "bob"})
        await self.ok("create-tenant", {}, tenant="globex")
        await self.ok("register-user", {"handle": "gus"}, tenant="globex")

    async def restart(self) -> None:
        await self.service.shut_down()
        await self.start()
        await self.ready()

    async def token(self, handle: str = "ann", *, tenant: str = "acme") -> dict[str, Any]:
        issued: dict[str, Any] = await self.ok("issue-token", {"handle": handle, "ttl_seconds": 600}, tenant=tenant)
        return issued

    async def set_active(self, active: bool, handle: str = "ann") -> dict[str, Any]:
        told: dict[str, Any] = await self.ok("set-user-active", {"handle": handle, "active": active})
        return told

    @asynccontextmanager
    async def connected(
        self, handle: str = "ann", *, tenant: str = "acme", issued: dict[str, Any] | None = None
    ) -> AsyncIterator[Connected]:
        made = Connected()
        made.issued = issued or await self.token(handle, tenant=tenant)
        made.nc = await self.client(
            made.issued["token"],
            made.issued["session"],
            handle=handle,
            tenant=tenant,
            allow_reconnect=True,
            max_reconnect_attempts=2,
            reconnect_time_wait=0.1,
            error_cb=made.on_fault,
            disconnected_cb=made.on_cut,
            closed_cb=made.on_end,
        )
        try:
            yield made
        finally:
            await made.nc.close()

    async def refused(self, issued: dict[str, Any]) -> None:
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await self.bus.connect(token=issued["token"], connect_timeout=20)

    async def let_in_at_last(self, issued: dict[str, Any]) -> None:
        """Once the server has told that another connection ended."""
        async with asyncio.timeout(20):
            while True:
                with suppress(nats.errors.Error):
                    await (await self.bus.connect(token=issued["token"], connect_timeout=20)).close()
                    return


@pytest.fixture
async def users(nats_bus: Bus) -> AsyncIterator[Users]:
    made = Users(nats_bus)
    await made.open()
    await made.seed()
    yield made
    await made.close()


async def test_disabling_cuts_every_live_connection_of_that_user_and_the_client_does_not_come_back(
    users: Users,
) -> None:
    async with users.connected() as one, users.connected() as other:
        told = await users.set_active(False)
        assert (told["active"], told["sessions_ended"]) == (False, 2)
        assert (told["connections_cut"], told["connections_left"]) == (2, 0)
        for client in (one, other):
            await asyncio.wait_for(client.shut_out.wait(), 20)
            assert any("authorization violation" in fault.lower() for fault in client.faults), client.faults
    assert "Auth callout service returned an error: not signed in" in users.bus.log


async def test_no_message_passes_once_disabling_is_answered(users: Users) -> None:
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    async def talk(ann: Connected, subject: str) -> None:
        with suppress(nats.errors.Error):
            for number in range(10**9):
                await ann.nc.publish(subject, str(number).encode())
                await asyncio.sleep(0)

    async with users.bus.client("agent-runtime") as service, users.connected() as ann:
        await service.subscribe(subjects.any_request("cmd", "agent-runtime", "*"), cb=hear)
        await seen_by_server(service)
        subject = subjects.command("acme", await users.user(), "agent-runtime", "list-runs")
        talking = asyncio.ensure_future(talk(ann, subject))
        while not heard:
            await asyncio.sleep(0)
        await users.set_active(False)
        await seen_by_server(service)  # what the server took in before it cut the connection has arrived
        passed = len(heard)
        await asyncio.wait_for(ann.shut_out.wait(), 20)
        await seen_by_server(service)
        talking.cancel()
        await asyncio.wait([talking])
    assert len(heard) == passed


async def test_nobody_elses_connection_is_touched(users: Users) -> None:
    async with (
        users.connected("bob") as bob,
        users.connected("gus", tenant="globex") as gus,
        users.connected() as ann,
        users.bus.client("policy") as policy,
    ):
        await users.set_active(False)
        await asyncio.wait_for(ann.cut.wait(), 20)
        await policy.flush()
        assert await bob.lives()
        assert await gus.lives()
        assert policy.is_connected
        assert users.service.nc.is_connected
        assert users.installer.is_connected
        asked = subjects.command("acme", await users.user("bob"), "auth", "whoami")
        assert orjson.loads((await bob.nc.request(asked, b"{}", timeout=5)).data)["handle"] == "bob"


async def test_a_token_from_before_is_refused_after_enabling_and_a_new_one_is_not(users: Users) -> None:
    before = await users.token()
    await users.set_active(False)
    await users.refused(before)
    told = await users.set_active(True)
    assert (told["active"], told["connections_cut"], told["connections_left"]) == (True, 0, 0)
    await users.refused(before)
    await users.restart()
    await users.refused(before)
    async with users.connected() as ann:
        assert await ann.lives()


async def test_whoever_is_cut_off_was_told_why_on_the_own_live_subject(users: Users) -> None:
    async with users.connected() as ann:
        told = await ann.nc.subscribe(subjects.live("acme", await users.user(), "refusal"))
        await seen_by_server(ann.nc)
        await users.set_active(False)
        refusal = orjson.loads((await told.next_msg(timeout=5)).data)["error"]
    assert refusal["code"] == "auth.not_signed_in"
    assert refusal["reason"] == f"the user is disabled: the connections of session {ann.issued['session']} are cut"


async def test_whoever_connected_before_a_restart_is_cut_off_after_it(users: Users) -> None:
    async with users.connected("bob") as bob, users.connected() as ann:
        await users.restart()
        assert await ann.lives()
        told = await users.set_active(False)
        assert (told["connections_cut"], told["connections_left"]) == (1, 0)
        await asyncio.wait_for(ann.shut_out.wait(), 20)
        assert await bob.lives()


async def test_an_ended_session_is_cut_off_alone(users: Users) -> None:
    async with users.connected() as ended, users.connected() as other:
        told = await users.ok("end-session", {"session": ended.issued["session"], "reason": "stolen"})
        assert (told["connections_cut"], told["connections_left"]) == (1, 0)
        await asyncio.wait_for(ended.shut_out.wait(), 20)
        assert await other.lives()


async def test_the_client_library_says_that_it_is_shut_out(users: Users) -> None:
    issued = await users.token()
    async with connect(users.bus.url, token=issued["token"], timeout_seconds=4) as ann:
        assert (await ann.whoami())["handle"] == "ann"
        await users.set_active(False)
        with pytest.raises(NotSignedIn, match="lets this session in no more"):
            await ann.whoami()
    with pytest.raises(NotSignedIn, match="disabled"):
        async with connect(users.bus.url, token=issued["token"]):
            raise AssertionError("let in")


async def test_a_suspended_tenants_users_are_cut_off_and_no_other_tenants(users: Users) -> None:
    async with users.connected() as ann, users.connected("bob") as bob, users.connected("gus", tenant="globex") as gus:
        told = await users.ok("set-tenant-active", {"active": False})
        assert (told["connections_cut"], told["connections_left"]) == (2, 0)
        await asyncio.wait_for(ann.shut_out.wait(), 20)
        await asyncio.wait_for(bob.shut_out.wait(), 20)
        assert await gus.lives()


async def test_the_cap_holds_is_told_and_a_connection_that_ends_frees_its_place(users: Users) -> None:
    issued = await users.token()
    async with (
        users.connected(issued=issued) as first,
        users.connected(issued=issued),
        users.connected() as last,
        users.connected("bob") as bob,
    ):
        told = await first.nc.subscribe(subjects.live("acme", await users.user(), "refusal"))
        await seen_by_server(first.nc)
        await users.refused(issued)
        refusal = orjson.loads((await told.next_msg(timeout=5)).data)["error"]
        assert refusal["code"] == "overloaded.connections"
        assert refusal["reason"].startswith(f"{CAP} connections")
        assert "Auth callout service returned an error: overloaded.connections" in users.bus.log
        assert await bob.lives()
        await last.nc.close()
        await users.let_in_at_last(issued)


async def test_the_cap_is_not_forgotten_over_a_restart(users: Users) -> None:
    issued = await users.token()
    async with users.connected(issued=issued), users.connected(issued=issued), users.connected() as last:
        await users.restart()
        await users.refused(issued)
        await last.nc.close()
        await users.let_in_at_last(issued)


async def test_a_bus_server_that_comes_back_has_room_for_everybody_who_was_there(users: Users) -> None:
    issued = await users.token()
    async with users.connected(issued=issued), users.connected(issued=issued), users.connected(issued=issued):
        users.bus.stop()
        users.bus.start()
    await users.let_in_at_last(issued)


async def test_whoever_comes_and_goes_at_once_is_not_counted_although_another_went_before(users: Users) -> None:
    """What went before wakes the hearer of those who go: it must not hear the next one go before that one came."""
    live = LiveConnections(cap=CAP, monotonic=time.monotonic)
    rates = MessageRates(per_second=users.settings.messages_per_second, monotonic=time.monotonic)
    account = SystemAccount(users.settings, live, rates, asyncio.Event())
    await account.open()
    line = account._connected_client()
    async with users.bus.client("sys") as witness, users.connected() as first:
        gone = await witness.subscribe(subjects.CLIENT_DISCONNECTED)
        await seen_by_server(witness)
        async with asyncio.timeout(20):
            while not len(live):
                await seen_by_server(line)
        line._transport._io_writer.transport.pause_reading()  # so that all that is told from here on comes at once
        await first.nc.close()
        for _ in range(CAP):
            async with users.connected("bob"):
                pass
        for _ in range(1 + CAP):
            await gone.next_msg(timeout=20)
        line._transport._io_writer.transport.resume_reading()
        await seen_by_server(line)
    assert list(live) == []
    await account.close()


async def test_whatever_a_client_calls_itself_it_is_counted_and_cut_as_its_tokens_user(users: Users) -> None:
    issued, bobs = await users.token(), await users.token("bob")
    bob = f"acme/{await users.user('bob')}/{bobs['session']}"
    pair = nkeys.from_seed(SignKey.create("user").seed().encode())
    writers = []
    async with users.connected(issued=bobs) as honest:
        for disguise in ({"user": bob, "pass": "x", "name": bob}, {"nkey": pair.public_key.decode()}):
            reader, writer = await asyncio.open_connection("127.0.0.1", users.bus.port)
            writers.append(writer)
            nonce = json.loads((await reader.readline()).removeprefix(b"INFO "))["nonce"]
            if "nkey" in disguise:
                disguise["sig"] = base64.urlsafe_b64encode(pair.sign(nonce.encode())).rstrip(b"=").decode()
            connect = {"verbose": False, "protocol": 1, "auth_token": issued["token"], **disguise}
            writer.write(b"CONNECT " + json.dumps(connect).encode() + b"\r\nPING\r\n")
            while not (line := await reader.readline()).startswith(b"PONG"):
                assert not line.startswith(b"-ERR"), line
        async with users.connected(issued=issued):
            await users.refused(issued)
        told = await users.set_active(False)
        assert told["connections_cut"] >= 2
        assert await honest.lives()
    for writer in writers:
        writer.close()


async def test_no_other_key_than_auths_cuts_anybody_off_or_hears_who_comes(users: Users) -> None:
    async with users.connected() as ann:
        server, number = ann.nc._server_info["server_id"], ann.nc.client_id
        for name in (*SERVICES, "installer", "auth-callout"):
            async with users.bus.client(name) as nc:
                for where in (server, "PING"):
                    await nc.publish(subjects.kick(where), orjson.dumps({"cid": number}))
                await nc.publish(subjects.list_connections(server), b"{}")
                await nc.subscribe(subjects.CLIENT_CONNECTED)
                assert len(await users.bus.refused(nc)) == 4, name
        await ann.nc.publish(subjects.kick(server), orjson.dumps({"cid": number}))
        await seen_by_server(ann.nc)
        assert [fault for fault in ann.faults if "kick" in fault.lower()]
        assert await ann.lives()


async def flooding(nc: Client, subject: str, cut: asyncio.Event) -> int:
    """Publish as fast as it goes until cut off; how many messages it was."""
    said = 0
    with suppress(nats.errors.Error):
        while not cut.is_set():
            for _ in range(100):
                await nc.publish(subject, b"{}")
                said += 1
            await asyncio.sleep(0)
    return said


@pytest.mark.parametrize("verb", ["list-runs", None], ids=["heard by nobody", "refused by the server"])
async def test_whoever_floods_is_told_cut_off_and_refused_and_others_are_not(users: Users, verb: str | None) -> None:
    before = await users.token()
    """Told on a connection that only listens: one that sends on and on is reset with what it has not read."""
    async with (
        users.connected("bob") as bob,
        users.connected() as ann,
        users.connected() as quiet,
        users.bus.client("policy") as policy,
    ):
        user = await users.user()
        told = await bob.nc.subscribe(subjects.live("acme", await users.user("bob"), "refusal"))
        heard: list[Msg] = []
        await direct.subscribe(quiet.nc, subjects.live("acme", user, "refusal"), heard.append)
        await seen_by_server(quiet.nc)
        subject = subjects.command("acme", user, "agent-runtime", verb) if verb else f"remit.acme.{user}.evt.auth.x"
        async with asyncio.timeout(20):
            assert await flooding(ann.nc, subject, ann.cut) > users.settings.messages_per_second
            while not heard:
                await asyncio.sleep(0.01)
        refusal = orjson.loads(heard[0].data)["error"]
        assert refusal["code"] == "overloaded.messages"
        assert refusal["retry_after_seconds"] == 5.0
        await asyncio.wait_for(ann.shut_out.wait(), 20)
        await users.refused(before)
        assert "Auth callout service returned an error: overloaded.messages" in users.bus.log
        await policy.flush()
        assert await bob.lives()
        assert told.pending_msgs == 0
        assert policy.is_connected
        assert users.service.nc.is_connected
    await users.let_in_at_last(before)


async def test_connections_that_come_and_go_say_no_more_than_one_that_stays(users: Users) -> None:
    issued = await users.token()
    subject = subjects.command("acme", await users.user(), "agent-runtime", "list-runs")

    async def come_say_and_go() -> None:
        nc = await users.bus.connect(token=issued["token"], connect_timeout=20)
        try:
            for _ in range(users.settings.messages_per_second // 4):
                await nc.publish(subject)
            await seen_by_server(nc)
        finally:
            await nc.close()

    async def again_and_again() -> None:
        while True:
            await come_say_and_go()

    async with users.connected("bob") as bob:
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await asyncio.wait_for(again_and_again(), 20)
        assert await bob.lives()
    assert "overloaded.messages" in users.bus.log


async def test_a_service_may_say_as_much_as_it_has_to_say(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    counts = SystemAccount.counts

    async def counted(account: SystemAccount) -> dict[str, Listed]:
        nonlocal looks
        looks += 1
        return await counts(account)

    monkeypatch.setattr(SystemAccount, "counts", counted)
    said = 0
    async with users.connected("bob") as bob, users.bus.client("agent-runtime") as service:
        subject = subjects.live("acme", await users.user("bob"), "run", "r-1")
        async with asyncio.timeout(20):
            while looks < 4:
                for _ in range(500):
                    await service.publish(subject, b"{}")
                said += 500
                await seen_by_server(service)
        assert said > 4 * users.settings.messages_per_second
        assert service.is_connected
        assert await bob.lives()
