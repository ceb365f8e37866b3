"""The auth callout on a real bus server: who gets in, what they may do there, and who does not get in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from fixtures_nats import Bus, seen_by_server
from nats.aio.client import Client
from nats.aio.msg import Msg
from unit.auth.installations import Installation, installation

from remit_auth.callout import Callout
from remit_auth.callout_responder import CalloutResponder
from remit_auth.cutting import Cutting
from remit_auth.issuer import DevelopmentIssuer
from remit_auth.live_connections import LiveConnections, Place
from remit_auth.message_rates import MessageRates
from remit_auth.refusal_log import RefusalLog
from remit_auth.settings import AuthSettings
from remit_auth.system_account import SystemAccount
from remit_chassis.nkeys import SignKey, XKey
from remit_chassis.service import utc_now
from remit_contracts import subjects
from remit_contracts.directory import TokenIssued
from remit_contracts.errors import Refusal, Unavailable
from remit_contracts.identity import Caller
from remit_contracts.messages import encode


class Door:
    """The users ann (acme) and gus (globex) with their tokens, and the responder that lets them in."""

    def __init__(self, bus: Bus, at: Installation) -> None:
        self.bus = bus
        self.at = at
        settings = AuthSettings(home=bus.home.path, nats_url=bus.url)
        log = RefusalLog()
        live = LiveConnections(cap=8, monotonic=time.monotonic)
        rates = MessageRates(per_second=settings.messages_per_second, monotonic=time.monotonic)
        look_again = asyncio.Event()
        self.account = SystemAccount(settings, live, rates, look_again)
        self.cutting = Cutting(live, at.directory, self.account, self.tell, look_again)
        at.cut_off = self.cutting.cut
        callout = Callout(
            issuer=SignKey.read(settings.callout_issuer_file),
            xkey=XKey.read(settings.callout_xkey_file),
            verifier=at.verifier,
            directory=at.directory,
            live=live,
            rates=rates,
            full=self.cutting.full,
            clock=utc_now,
            log=log,
        )
        self.responder = CalloutResponder(callout, settings, log, known=self.cutting.known)

    async def tell(self, caller: Caller, refusal: Refusal) -> None:
        async with self.bus.client("auth") as service:
            subject = subjects.live(caller.tenant, caller.user, "refusal")
            await service.publish(subject, encode(refusal.as_dict()))

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Open, and agreeing with the directory, until closed."""
        await self.account.open()
        agreeing = asyncio.ensure_future(self.cutting.run())
        await self.responder.open()
        try:
            yield
        finally:
            await self.responder.close()
            await self.account.close()
            agreeing.cancel()
            await asyncio.wait([agreeing])

    async def token(self, tenant: str = "acme", handle: str = "ann", ttl_seconds: int = 60) -> TokenIssued:
        return await self.at.accounts.issue_token(tenant=tenant, handle=handle, ttl_seconds=ttl_seconds)

    def user(self, tenant: str, handle: str) -> str:
        return self.at.directory.of(tenant).find(handle).user

    @asynccontextmanager
    async def client(self, issued: TokenIssued, **options: Any) -> AsyncIterator[Client]:
        who = self.at.verifier.verify(issued.token, at=utc_now()).caller
        prefix = f"_INBOX.{who.tenant}.{who.user}.{who.session}"
        nc = await self.bus.connect(token=issued.token, inbox_prefix=prefix, **options)
        try:
            yield nc
        finally:
            await nc.close()

    async def refused(self, **credentials: Any) -> str:
        """What the client is told, also after the two seconds that the server waits for a silent callout."""
        with pytest.raises(nats.errors.Error) as refusal:
            await self.bus.connect(connect_timeout=20, **credentials)
        return str(refusal.value)


@pytest.fixture
async def door(nats_bus: Bus, tmp_path: Path) -> AsyncIterator[Door]:
    async with installation(tmp_path, clock=utc_now) as at:
        await at.acme()
        await at.accounts.create_tenant(tenant="globex", name=None)
        await at.accounts.register_user(tenant="globex", handle="gus", email=None, name=None, roles=[])
        made = Door(nats_bus, at)
        async with made.working():
            yield made


async def test_a_user_asks_a_service_and_is_answered_in_the_sessions_own_inbox(door: Door) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(message.subject.encode())

    async with door.bus.client("auth") as service, door.client(await door.token()) as ann:
        await service.subscribe("remit.*.*.cmd.auth.*", queue="auth", cb=answer)
        await seen_by_server(service)
        mine = f"remit.acme.{door.user('acme', 'ann')}"
        assert (
            await ann.request(f"{mine}.cmd.auth.whoami", b"{}", timeout=5)
        ).data == f"{mine}.cmd.auth.whoami".encode()


async def test_a_user_hears_its_own_progress_and_nobody_elses(door: Door) -> None:
    async with door.bus.client("auth") as service, door.client(await door.token()) as ann:
        mine = f"remit.acme.{door.user('acme', 'ann')}.live.directory"
        heard = await ann.subscribe(f"remit.acme.{door.user('acme', 'ann')}.live.>")
        await seen_by_server(ann)
        await service.publish(f"remit.globex.{door.user('globex', 'gus')}.live.directory", b"theirs")
        await service.publish(mine, b"mine")
        message = await heard.next_msg(timeout=5)
        assert (message.subject, message.data) == (mine, b"mine")
        assert heard.pending_msgs == 0


async def test_every_foreign_publish_is_refused_by_the_server(door: Door) -> None:
    async with door.client(await door.token()) as ann:
        me, gus = door.user("acme", "ann"), door.user("globex", "gus")
        foreign = [
            f"remit.globex.{gus}.cmd.auth.whoami",
            f"remit.acme.{gus}.cmd.auth.whoami",
            f"remit.globex.{me}.cmd.auth.whoami",
            "remit.acme.system.cmd.auth.whoami",
            f"remit.acme.{me}.rpc.auth.issue-token",
            "remit.acme.system.rpc.auth.issue-token",
            f"remit.acme.{me}.evt.auth.00000000000000000000000000000000",
            f"remit.acme.{me}.live.directory",
            f"remit.acme.{me}.job.analyst",
            f"remit.acme.{me}.cmd",
            f"_INBOX.globex.{gus}.s-1.x",
            "_INBOX_SVC.policy.rq.1",
            "$JS.API.STREAM.INFO.EVENTS_acme",
            "$JS.API.STREAM.NAMES",
            "$KV.x.y",
            "$SYS.REQ.USER.AUTH",
            "$SYS.REQ.SERVER.PING",
            "$SYS.REQ.SERVER.PING.CONNZ",
            "$SYS.REQ.SERVER.PING.KICK",
            "$SRV.INFO",
            "$SRV.STATS.agents",
            "$SRV.PING",
        ]
        for subject in foreign:
            await ann.publish(subject, b"x")
            [violation] = await door.bus.refused(ann)
            assert f'permissions violation for publish to "{subject.lower()}"' in violation.lower()


async def test_every_foreign_subscription_is_refused_by_the_server(door: Door) -> None:
    issued, other = await door.token(), await door.token()
    async with door.client(issued) as ann:
        me, gus = door.user("acme", "ann"), door.user("globex", "gus")
        foreign = [
            ">",
            "*",
            "remit.>",
            "remit.acme.>",
            f"remit.acme.{me}.>",
            f"remit.acme.{me}.*.directory",
            f"remit.acme.{me}.cmd.>",
            f"remit.acme.{me}.evt.>",
            "remit.*.*.live.>",
            f"remit.acme.{gus}.live.>",
            f"remit.globex.{gus}.live.>",
            "_INBOX.>",
            "_INBOX.acme.>",
            f"_INBOX.acme.{me}.>",
            f"_INBOX.acme.{me}.*.>",
            f"_INBOX.acme.{me}.{other.session}.>",
            f"_INBOX.acme.{me}.{issued.session}x.>",
            "_INBOX_SVC.>",
            "agents.hb.>",
            f"agents.hb.*.acme_{gus}.*",
            "$SRV.>",
            "$SYS.>",
            "$SYS.ACCOUNT.APP.CONNECT",
            "$JS.>",
        ]
        for subject in foreign:
            await ann.subscribe(subject)
            [violation] = await door.bus.refused(ann)
            assert f'permissions violation for subscription to "{subject.lower()}"' in violation.lower()
        await ann.subscribe("remit.acme.x.cmd.auth.whoami", queue="auth")
        assert len(await door.bus.refused(ann)) == 1


async def test_two_sessions_of_one_user_neither_speak_into_nor_hear_each_others_inbox(door: Door) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(b"for one session")

    mine, other = await door.token(), await door.token()
    me = door.user("acme", "ann")
    asked = f"remit.acme.{me}.cmd.auth.whoami"
    async with door.bus.client("auth") as service, door.client(mine) as one, door.client(other) as two:
        await service.subscribe(asked, cb=answer)
        await seen_by_server(service)
        inbox = f"_INBOX.acme.{me}.{other.session}"
        heard = await two.subscribe(f"{inbox}.forged.>")
        await seen_by_server(two)
        for subject in (f"{inbox}.forged.x", f"{inbox}.forged.x.y"):
            await one.publish(subject, b"forged")
            [violation] = await door.bus.refused(one)
            assert f'permissions violation for publish to "{subject.lower()}"' in violation.lower()
        for subject in (f"{inbox}.>", f"{inbox}.forged.x", f"{inbox}.*"):
            eavesdropping = await one.subscribe(subject)
            [violation] = await door.bus.refused(one)
            assert f'permissions violation for subscription to "{subject.lower()}"' in violation.lower()
            assert (await two.request(asked, b"{}", timeout=5)).data == b"for one session"
            await seen_by_server(one)
            assert eavesdropping.pending_msgs == 0
        assert heard.pending_msgs == 0


async def test_everyone_who_is_refused_hears_the_same(door: Door) -> None:
    good = await door.token()
    other_key = DevelopmentIssuer(bytes(32), oidc_issuer=None)
    forged = other_key.issue(
        tenant="acme",
        user=door.user("acme", "ann"),
        session=good.session,
        token_id="t-1",
        issued_at=utc_now(),
        expires_at=utc_now() + timedelta(minutes=1),
    )
    unrecorded = door.at.issuer.issue(
        tenant="acme",
        user=door.user("acme", "ann"),
        session="s-never-opened",
        token_id="t-1",
        issued_at=utc_now() - timedelta(seconds=1),
        expires_at=utc_now() + timedelta(minutes=1),
    )
    header, claims, _ = good.token.split(".")
    told = {
        await door.refused(),
        await door.refused(token="nope"),
        await door.refused(token=forged),
        await door.refused(token=unrecorded),
        await door.refused(token=f"{header}.{claims}."),
        await door.refused(token=good.token[:-8]),
        await door.refused(user="ann", password=good.token),
        await door.refused(nkeys_seed_str=SignKey.create("user").seed()),
        await door.refused(token="x" * 3000),
    }
    assert told == {"nats: 'Authorization Violation'"}
    async with door.client(good) as ann:
        assert ann.is_connected
    assert good.token not in door.bus.log


async def test_a_disabled_user_does_not_get_in_again_and_after_enabling_with_a_new_token_only(door: Door) -> None:
    issued = await door.token()
    await door.at.accounts.set_user_active(tenant="acme", handle="ann", active=False, reason=None)
    await door.refused(token=issued.token)
    await door.at.accounts.set_user_active(tenant="acme", handle="ann", active=True, reason=None)
    await door.refused(token=issued.token)
    async with door.client(await door.token()) as ann:
        assert ann.is_connected


async def test_an_ended_session_and_a_suspended_tenant_do_not_get_in(door: Door) -> None:
    issued, gus = await door.token(), await door.token("globex", "gus")
    await door.at.accounts.end_session(tenant="acme", session_id=issued.session, reason="stolen")
    await door.refused(token=issued.token)
    await door.at.accounts.set_tenant_active(tenant="globex", active=False, reason=None)
    await door.refused(token=gus.token)
    async with door.client(await door.token()) as ann:
        assert ann.is_connected


async def test_whoever_cannot_be_cut_off_is_refused_all_the_same_and_cut_as_soon_as_it_can_be(door: Door) -> None:
    cut = asyncio.Event()

    async def on_disconnect() -> None:
        cut.set()

    async with door.client(await door.token(), disconnected_cb=on_disconnect) as ann:
        await door.account.close()
        told = await door.at.accounts.set_user_active(tenant="acme", handle="ann", active=False, reason=None)
        assert (told.active, told.sessions_ended, told.connections_cut, told.connections_left) == (False, 1, 0, None)
        await ann.flush()
        assert ann.is_connected
        await door.account.open()
        await asyncio.wait_for(cut.wait(), 20)


async def test_a_kick_to_a_server_that_is_not_there_is_no_success(door: Door) -> None:
    with pytest.raises(Unavailable):
        await door.account.kick(Place("N" * 56, 1))


async def test_the_server_cuts_a_connection_when_its_token_expires(door: Door) -> None:
    cut = asyncio.Event()

    async def on_disconnect() -> None:
        cut.set()

    issued = await door.token(ttl_seconds=3)
    async with door.client(issued, disconnected_cb=on_disconnect):
        await asyncio.wait_for(cut.wait(), 20)
        assert utc_now() >= issued.expires_at
    await door.refused(token=issued.token)


async def test_while_the_callout_is_down_nobody_new_gets_in_and_after_it_everybody_does(door: Door) -> None:
    issued = await door.token()
    async with door.client(issued) as already:
        await door.responder.close()
        await door.refused(token=issued.token)
        await already.flush()
        assert already.is_connected
    await door.responder.open()
    async with door.client(issued) as ann:
        assert ann.is_connected
