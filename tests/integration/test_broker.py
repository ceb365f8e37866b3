"""The credential broker on the real bus with its own nkey: users, runtime, policy and tool host around it."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import orjson
import pytest
from fixtures_nats import Bus, seen_by_server
from full_disk import full_disk
from integration.known_sessions import known_sessions
from nacl.public import Box, PrivateKey, PublicKey, SealedBox
from nats.aio.client import Client
from nats.aio.msg import Msg

from remit_chassis.keyring import BrokerUserKeys
from remit_chassis.permits import PermitSigner
from remit_chassis.requester import Requester
from remit_chassis.service import Service
from remit_chassis.settings import read_hex_secret
from remit_contracts import subjects
from remit_contracts.errors import Absent, Refusal, Unavailable
from remit_contracts.fast_decisions import AnswerContext, DecisionAnswer, DecisionRequest, Reason
from remit_contracts.fast_leases import LeaseAnswer, LeaseContent, LeaseRequest
from remit_contracts.permits import PermitClaims, args_digest
from remit_credential_broker.__main__ import build
from remit_credential_broker.settings import BrokerSettings
from remit_credential_broker.vault import VaultRefused
from remit_infra.streams import ensure_streams

CANARY = "sk-canary-on-the-bus-51d2"
RUN = "c" * 32


class Around:
    """Everybody that the broker talks to: `anyone` stands for users, `runtime` has the runtime's own nkey."""

    def __init__(self, bus: Bus, anyone: Client, runtime: Client, policy: Client) -> None:
        self.bus, self.anyone, self.policy = bus, anyone, policy
        self.runtime = Requester(runtime, subjects.service_inbox("agent-runtime"))
        self.signer = PermitSigner(read_hex_secret(bus.home.secrets / "permit.key"))
        self.sessions: set[str] = set()
        self.denied: set[str] = set()
        self.asked: list[tuple[str, str, str]] = []
        self._count = 0

    async def decide(self, message: Msg) -> None:
        """Policy's part: it allows what is not in `denied`."""
        request = DecisionRequest.from_bytes(message.data)
        self.asked.append((request.subject.id, request.action.name, request.resource.id))
        allowed = request.action.name not in self.denied
        reasons = () if allowed else (Reason("policy.no_grant", "no role of yours allows this"),)
        await message.respond(DecisionAnswer(allowed, AnswerContext("d" * 32, reasons)).to_bytes())

    async def command(self, verb: str, payload: dict[str, Any] | None = None, *, user: str = "u-1") -> Any:
        """What a user's client asks, and the answer's JSON."""
        self._count += 1
        heard = await self.anyone.subscribe(f"_INBOX.acme.{user}.s-1.{self._count}")
        subject = subjects.command("acme", user, "credential-broker", verb)
        await self.anyone.publish(subject, orjson.dumps(payload or {}), reply=f"_INBOX.acme.{user}.s-1.{self._count}")
        try:
            return orjson.loads((await heard.next_msg(10)).data)
        finally:
            await heard.unsubscribe()

    async def add(self, name: str = "desk", *, user: str = "u-1", **changes: Any) -> Any:
        key = (await self.command("sealing-key", user=user))["public_key"]
        sealed = SealedBox(PublicKey(bytes.fromhex(key))).encrypt(CANARY.encode())
        told = {"name": name, "kind": "bearer", "hosts": ["127.0.0.1:1"], "scopes": ["read"], **changes}
        told["sealed_secret"] = base64.b64encode(sealed).decode()
        return await self.command("add-connection", told, user=user)

    def permit(self, user: str = "u-1") -> str:
        now = time.time()
        claims = PermitClaims(
            jti=uuid4().hex,
            tenant="acme",
            user=user,
            session="s-1",
            run=RUN,
            ordinal=1,
            tool="weather-desk",
            args_digest=args_digest({}),
            scopes=("connection:desk", "read"),
            bundle_digest="d",
            data_revision="1",
            input_digest="i",
            iat=now,
            exp=now + 15,
        )
        return self.signer.sign(claims)

    async def lease(self, permit: str, *, user: str = "u-1", tenant: str = "acme") -> LeaseAnswer:
        """What the runtime asks; a refusal is raised."""
        request = LeaseRequest(permit=permit, tool="weather-desk", connection="desk", run=RUN).to_bytes()
        subject = subjects.rpc(tenant, user, "credential-broker", "lease")
        return LeaseAnswer.from_bytes(await self.runtime.ask(subject, request, timeout_seconds=10))

    def opened(self, lease: LeaseAnswer) -> LeaseContent:
        """What the tool host finds in it."""
        key = PrivateKey(read_hex_secret(self.bus.home.secrets / "tool-host.key"))
        broker = PublicKey(read_hex_secret(self.bus.home.public / "broker.pub"))
        return LeaseContent.from_bytes(Box(key, broker).decrypt(base64.b64decode(lease.sealed)))


@pytest.fixture
async def around(nats_bus: Bus) -> AsyncIterator[Around]:
    nats_bus.add_anyone()
    await ensure_streams(nats_bus.home, nats_bus.url, ["acme"])
    anyone = await nats_bus.connect_as_anyone()
    async with (
        nats_bus.client("agent-runtime") as runtime,
        nats_bus.client("policy") as policy,
        known_sessions(nats_bus, "s-1") as sessions,
    ):
        made = Around(nats_bus, anyone, runtime, policy)
        made.sessions = sessions
        await made.runtime.start()
        await policy.subscribe(subjects.any_request("rpc", "policy", "decide"), cb=made.decide)
        await seen_by_server(policy)
        await seen_by_server(runtime)
        yield made
        await made.runtime.stop()
    await anyone.close()


@asynccontextmanager
async def running(bus: Bus) -> AsyncIterator[Service]:
    """The broker, in this process."""
    service = build(BrokerSettings(home=bus.home.path, nats_url=bus.url, probe_private_hosts=True))
    await service.start()
    await seen_by_server(service.nc)
    try:
        yield service
    finally:
        await service.shut_down()


async def code_of(asking: Any) -> str:
    with pytest.raises(Refusal) as refusal:
        await asking
    return refusal.value.refusal_code


async def test_a_secret_goes_in_sealed_and_comes_out_for_the_tool_host_alone(around: Around) -> None:
    async with running(around.bus) as service:
        added = await around.add()
        assert (added["name"], added["status"], added["shared"]) == ("desk", "active", False)
        lease = await around.lease(around.permit())
        content = around.opened(lease)
        assert (content.secret, content.tenant, content.user, content.tool) == (CANARY, "acme", "u-1", "weather-desk")
        assert (content.hosts, content.scopes) == (("127.0.0.1:1",), ("read",))
        rows = (await around.command("list-leases"))["leases"]
        assert [(row["lease_id"], row["status"]) for row in rows] == [(lease.lease_id, "live")]
        assert (await around.command("list-leases", user="u-2"))["leases"] == []
        assert (await service.health()).checks["vault"].ok
    assert around.asked == [("u-1", "connection.add", "desk")]


async def test_of_fifty_uses_of_one_permit_on_the_bus_one_works(around: Around) -> None:
    async with running(around.bus):
        await around.add()
        permit = around.permit()
        outcomes = await asyncio.gather(*(around.lease(permit) for _ in range(50)), return_exceptions=True)
        assert sum(isinstance(outcome, LeaseAnswer) for outcome in outcomes) == 1
        codes = [outcome.refusal_code for outcome in outcomes if isinstance(outcome, Refusal)]
        assert codes == ["lease.permit_used"] * 49


async def test_the_subject_says_whose_lease_it_is_and_not_the_permit(around: Around) -> None:
    async with running(around.bus):
        await around.add(user="u-1")
        await around.add(user="u-2")
        permit = around.permit("u-1")
        assert await code_of(around.lease(permit, user="u-2")) == "lease.permit_mismatch"
        assert await code_of(around.lease(permit, user="u-1", tenant="globex")) == "lease.permit_mismatch"
        assert around.opened(await around.lease(permit)).user == "u-1"


async def test_a_denied_user_adds_nothing(around: Around) -> None:
    around.denied = {"connection.share"}
    async with running(around.bus):
        refused = await around.add(shared=True)
        assert refused["error"]["code"] == "policy.denied"
        assert refused["error"]["decision_id"] == "d" * 32
        assert (await around.command("list-connections"))["connections"] == []


async def test_without_policy_nothing_is_added(around: Around) -> None:
    await around.policy.close()
    async with running(around.bus):
        assert (await around.add())["error"]["code"] == "unavailable"
        assert (await around.command("list-connections"))["connections"] == []


async def test_after_a_revocation_no_lease_is_issued_and_the_old_one_is_shown_as_revoked(around: Around) -> None:
    async with running(around.bus):
        await around.add()
        await around.lease(around.permit())
        revoked = await around.command("revoke-connection", {"name": "desk"})
        assert revoked["status"] == "revoked"
        assert await code_of(around.lease(around.permit())) == "lease.connection_revoked"
        assert [row["status"] for row in (await around.command("list-leases"))["leases"]] == ["revoked"]


async def test_a_users_key_goes_to_the_service_that_is_named_and_opens_for_no_other(around: Around) -> None:
    async def ask(tenant: str, user: str, service: str, verb: str, payload: bytes) -> bytes:
        return await around.runtime.ask(subjects.rpc(tenant, user, service, verb), payload, timeout_seconds=10)

    seeds = around.bus.home.secrets / "box"
    runtime = BrokerUserKeys(ask=ask, service="agent-runtime", box_seed=read_hex_secret(seeds / "agent-runtime.key"))
    audit = BrokerUserKeys(ask=ask, service="audit", box_seed=read_hex_secret(seeds / "audit.key"))
    thief = BrokerUserKeys(ask=ask, service="audit", box_seed=read_hex_secret(seeds / "agent-runtime.key"))
    async with running(around.bus) as service:
        key = await runtime.key("acme", "u-1")
        assert len(key) == 32
        assert await audit.key("acme", "u-1") == key
        assert await runtime.key("acme", "u-2") != key
        assert await runtime.key("globex", "u-1") != key
        with pytest.raises(Unavailable):
            await thief.key("acme", "u-1")
        stranger = BrokerUserKeys(ask=ask, service="stranger", box_seed=bytes(range(32)))
        assert await code_of(stranger.key("acme", "u-1")) == "request.malformed"
        await service.stores.of("acme").open()
    async with running(around.bus) as service:
        runtime.forget("acme", "u-1")
        assert await runtime.key("acme", "u-1") == key


async def test_an_erased_users_key_is_absent_for_ever(around: Around) -> None:
    async def ask(tenant: str, user: str, service: str, verb: str, payload: bytes) -> bytes:
        return await around.runtime.ask(subjects.rpc(tenant, user, service, verb), payload, timeout_seconds=10)

    seed = read_hex_secret(around.bus.home.secrets / "box" / "agent-runtime.key")
    for _ in range(2):
        async with running(around.bus):
            from remit_chassis.vaultfile import VaultFile, load_master_key

            home = around.bus.home
            vault = VaultFile(home.path / "vault" / "vault.sqlite", load_master_key(home.secrets / "master.key"))
            vault.destroy_user_key("acme", "u-1")
            vault.close()
            with pytest.raises(Absent) as refusal:
                await BrokerUserKeys(ask=ask, service="agent-runtime", box_seed=seed).key("acme", "u-1")
            assert refusal.value.refusal_code == "absent.erased"


async def test_another_master_key_is_refused_at_start(around: Around) -> None:
    async with running(around.bus):
        await around.add()
    with pytest.raises(VaultRefused, match="does not open with this master key"):
        build(BrokerSettings(home=around.bus.home.path, nats_url=around.bus.url, master_key="00" * 32))


async def test_a_connection_is_tested_against_its_host_and_the_secret_only_goes_there(around: Around) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        good = f"Authorization: Bearer {CANARY}\r\n".encode() in asked[-1]
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if good else b"HTTP/1.1 401 No\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, running(around.bus):
        await around.add(hosts=[f"127.0.0.1:{server.sockets[0].getsockname()[1]}"])
        tested = await around.command("test-connection", {"name": "desk", "path": "/me"})
        assert (tested["ok"], tested["status"]) == (True, 200)
        assert (await around.command("show-connection", {"name": "desk"}))["last_test_ok"] is True
        bad = await around.command("test-connection", {"name": "desk", "path": "/\r\nX: 1"})
        assert bad["error"]["code"] == "request.malformed"
    assert len(asked) == 1


@pytest.mark.parametrize("payload", [b"", b"null", b'{"permit": 1}', b"\xff\xfe", b"[" * 60_000])
async def test_garbage_on_the_hot_subject_is_refused_with_a_code(around: Around, payload: bytes) -> None:
    async with running(around.bus):
        subject = subjects.rpc("acme", "u-1", "credential-broker", "lease")
        assert await code_of(around.runtime.ask(subject, payload, timeout_seconds=10)) == "request.malformed"


async def test_the_canary_is_nowhere_on_disk_and_in_no_message(around: Around) -> None:
    """Connected, leased, refused, tested and revoked: then every file of the home and every message is searched."""
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(f"{message.subject} {message.headers}".encode() + message.data)

    await around.anyone.subscribe(">", cb=hear)
    await seen_by_server(around.anyone)
    async with running(around.bus):
        await around.add()
        assert around.opened(await around.lease(around.permit())).secret == CANARY
        assert await code_of(around.lease("x")) == "lease.permit_malformed"
        await around.command("test-connection", {"name": "desk"})
        await around.command("show-connection", {"name": "desk"})
        await around.command("list-leases")
        heard += [path.read_bytes() for path in around.bus.home.path.rglob("*") if path.is_file()]
        await around.command("revoke-connection", {"name": "desk"})
    await seen_by_server(around.anyone)
    heard += [path.read_bytes() for path in around.bus.home.path.rglob("*") if path.is_file()]
    everything = b"\n".join(heard)
    assert b"broker.Lease.Issued" in everything
    shifted = [base64.b64encode(b"x" * shift + CANARY.encode())[shift + 1 : -4] for shift in range(3)]
    for needle in (CANARY.encode(), CANARY.encode().hex().encode(), *shifted):
        assert needle not in everything


class Process:
    """The broker as a process of its own."""

    def __init__(self, bus: Bus) -> None:
        reading, announcing = os.pipe()
        self.child = subprocess.Popen(
            [sys.executable, "-m", "remit_credential_broker"],
            env={
                **os.environ,
                "REMIT_HOME": str(bus.home.path),
                "REMIT_NATS_URL": bus.url,
                "REMIT_READY_FD": str(announcing),
            },
            pass_fds=(announcing,),
            stderr=subprocess.DEVNULL,
        )
        os.close(announcing)
        self.announcements = os.fdopen(reading)

    async def ready(self) -> None:
        while (said := await asyncio.to_thread(self.announcements.readline)).startswith("waiting: "):
            pass
        assert said == "ready\n"

    async def end(self, number: int) -> None:
        if self.child.poll() is None:
            self.child.send_signal(number)
        await asyncio.to_thread(self.child.wait, 20)
        self.announcements.close()


async def test_a_permit_used_before_a_crash_is_refused_after_it_and_nothing_else_is_lost(around: Around) -> None:
    broker = Process(around.bus)
    try:
        await broker.ready()
        await around.add()
        permits = [around.permit() for _ in range(20)]
        await asyncio.gather(*map(around.lease, permits))
        await broker.end(signal.SIGKILL)
        broker = Process(around.bus)
        await broker.ready()
        for permit in permits:
            assert await code_of(around.lease(permit)) in ("lease.permit_before_start", "lease.permit_used")
        assert around.opened(await around.lease(around.permit())).secret == CANARY
    finally:
        await broker.end(signal.SIGTERM)
    assert broker.child.returncode == 0


async def test_a_connection_that_a_full_disk_refuses_is_unavailable_and_added_later(around: Around) -> None:
    async with running(around.bus) as service:
        vault = around.bus.home.path / "vault"
        assert "error" not in await around.add("first")
        store = around.bus.home.path / "store" / "credential-broker" / "acme.sqlite-wal"
        log = vault / "vault.sqlite-wal"
        number = 0
        while log.stat().st_size <= 2 * store.stat().st_size:  # so that the vault is what has no room
            number += 1
            service.user_keys._vault.put_secret("acme", "u-9", "filler", os.urandom(50_000))
        assert number < 50
        with full_disk(log.stat().st_size):
            refused = (await around.add("second"))["error"]
        assert (refused["code"], "vault.sqlite cannot be read or written now" in refused["reason"]) == (
            "unavailable",
            True,
        )
        assert (await around.add("second"))["status"] == "active"


async def test_nothing_is_decided_or_kept_under_a_session_that_is_none_of_the_users(around: Around) -> None:
    async with running(around.bus) as service:
        assert "error" not in await around.add("first", shared=True)
        asked = list(around.asked)
        head = service.stores.of("acme").head()
        around.sessions.clear()
        for refused in (
            await around.add("second"),
            await around.command("test-connection", {"name": "first", "path": "/"}),
            await around.command("revoke-connection", {"name": "first"}),
        ):
            assert refused["error"]["code"] == "auth.session_ended", refused
        assert (around.asked, service.stores.of("acme").head()) == (asked, head)
