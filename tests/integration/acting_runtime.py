"""A runtime whose tools act on a desk outside: real bus, real tool host, and the desk's own ledger of what reached it.

Policy and broker are played with their own nkeys and keys. What they do can be held up and narrowed, because attacks on
the runtime need moments and answers that the real ones would not give.
"""

from __future__ import annotations

import asyncio
import base64
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
from fixtures_nats import Bus
from integration.known_sessions import known_sessions
from integration.toolhost_desk import Desk
from nacl.public import Box, PrivateKey, PublicKey
from nats.aio.client import Client
from nats.aio.msg import Msg

from remit_agent_runtime.__main__ import build
from remit_agent_runtime.settings import AgentRuntimeSettings
from remit_chassis.permits import PermitSigner, PermitVerifier
from remit_chassis.service import Service
from remit_chassis.settings import read_hex_secret
from remit_contracts import subjects
from remit_contracts.fast_decisions import AnswerContext, DecisionAnswer, DecisionRequest, Obligation
from remit_contracts.fast_leases import LeaseAnswer, LeaseContent, LeaseRequest
from remit_contracts.permits import PermitClaims
from remit_infra.streams import ensure_streams

TENANT = "acme"
ENDS = ("runtime.Run.Completed", "runtime.Run.Failed", "runtime.Run.Cancelled")
"""The topics that end a run."""


class OneKey:
    """A key for everybody: these tests are about runs."""

    def cached(self, tenant: str, user: str) -> bytes:
        return bytes(32)

    async def key(self, tenant: str, user: str) -> bytes:
        return bytes(32)

    def forget(self, tenant: str, user: str) -> None:
        """Nothing is kept."""


@dataclass
class Others:
    """Policy, which allows everything, and the broker, which lends against every permit."""

    bus: Bus
    hosts: tuple[str, ...]
    """Where leased tokens may be sent."""
    obligations: tuple[Obligation, ...] = ()
    decides_calls: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, no tool call is decided."""
    asked_about_calls: int = 0

    def __post_init__(self) -> None:
        self.decides_calls.set()
        self._signer = PermitSigner(read_hex_secret(self.bus.home.secrets / "permit.key"))
        self._box = Box(
            PrivateKey(read_hex_secret(self.bus.home.secrets / "broker.key")),
            PublicKey(read_hex_secret(self.bus.home.public / "tool-host.pub")),
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def decide(self, message: Msg) -> None:
        task = asyncio.ensure_future(self._decide(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide(self, message: Msg) -> None:
        asked = DecisionRequest.from_bytes(message.data)
        context = AnswerContext(decision_id=uuid.uuid4().hex, input=msgspec.Raw(message.data))
        if asked.action.name == "tool.call":
            self.asked_about_calls += 1
            await self.decides_calls.wait()
            context = msgspec.structs.replace(
                context, obligations=self.obligations, permit=self._permit(message.subject, asked, context.decision_id)
            )
        await message.respond(DecisionAnswer(True, context).to_bytes())

    def _permit(self, subject: str, asked: DecisionRequest, decision_id: str) -> str:
        now, call = time.time(), asked.context
        return self._signer.sign(
            PermitClaims(
                jti=decision_id,
                tenant=subject.split(".")[1],
                user=subject.split(".")[2],
                session=call.session,
                run=call.run,
                ordinal=call.ordinal or 0,
                tool=asked.resource.id,
                args_digest=call.args_digest,
                scopes=call.scopes,
                obligations=self.obligations,
                bundle_digest="b",
                data_revision="1",
                input_digest="i",
                iat=now,
                exp=now + 15,
            )
        )

    async def lend(self, message: Msg) -> None:
        request = LeaseRequest.from_bytes(message.data)
        claims = PermitVerifier(self._signer.public_key).verify(request.permit, time.time())
        content = LeaseContent(
            lease=uuid.uuid4().hex,
            secret="a-token-of-the-desk",
            tenant=claims.tenant,
            user=claims.user,
            session=claims.session,
            run=claims.run,
            ordinal=claims.ordinal,
            tool=claims.tool,
            connection=request.connection,
            hosts=self.hosts,
            scopes=(),
            jti=claims.jti,
            expires_at=time.time() + 30,
        )
        sealed = base64.b64encode(self._box.encrypt(content.to_bytes())).decode()
        until = datetime.fromtimestamp(content.expires_at, UTC)
        await message.respond(LeaseAnswer(lease_id=content.lease, sealed=sealed, expires_at=until).to_bytes())


@dataclass
class Acting:
    """The whole scene. `desk.ledger` is what happened outside, whoever says what."""

    bus: Bus
    service: Service
    others: Others
    desk: Desk
    nc: Client
    sessions: set[str]
    """Those that auth knows as open."""

    async def command(
        self, verb: str, payload: dict[str, Any], *, user: str = "u-1", session: str = "s-1"
    ) -> dict[str, Any]:
        """A user's command, answered into that user's inbox, in the part that the client calls its session's."""
        inbox = f"_INBOX.{TENANT}.{user}.{session}.{uuid.uuid4().hex}"
        listening = await self.nc.subscribe(inbox)
        await self.nc.publish(subjects.command(TENANT, user, "agent-runtime", verb), orjson.dumps(payload), reply=inbox)
        try:
            answer: dict[str, Any] = orjson.loads((await listening.next_msg(10)).data)
            return answer
        finally:
            await listening.unsubscribe()

    async def start(self, *words: str, user: str = "u-1") -> dict[str, Any]:
        """A run that calls the desk once for each word."""
        script = [{"call": {"tool": "desk", "args": {"word": word}}} for word in words]
        prompt = orjson.dumps({"script": script}).decode()
        return await self.command("start-run", {"agent": "clerk", "prompt": prompt}, user=user)

    async def ended(self, run_id: str, *, user: str = "u-1") -> dict[str, Any]:
        """The run's view once it has ended."""
        async with asyncio.timeout(30):
            while True:
                view = await self.command("show-run", {"run_id": run_id}, user=user)
                if view.get("status") in ("completed", "failed", "cancelled"):
                    return view
                await asyncio.sleep(0.02)

    async def topics(self, run_id: str) -> list[str]:
        """What the store holds of a run, in order."""
        envelopes = await self.service.stores.of(TENANT).read(1, 10_000)
        return [envelope.topic for envelope in envelopes if envelope.originator_id == run_id]

    @property
    def effects(self) -> list[str]:
        """Keys of the effects that happened, in order."""
        return [seen.headers["idempotency-key"] for seen in self.desk.ledger]


@asynccontextmanager
async def acting(bus: Bus, **settings: Any) -> AsyncIterator[Acting]:
    """The runtime at work on `bus`, with an agent `clerk` whose tool `desk` posts to the desk."""
    bus.add_anyone()
    await ensure_streams(bus.home, bus.url, [TENANT])
    async with (
        Desk() as desk,
        bus.client("policy") as policy,
        bus.client("credential-broker") as broker,
        known_sessions(bus, "s-1") as sessions,
    ):
        _write_home(bus, desk)
        others = Others(bus, hosts=(desk.address,))
        await policy.subscribe(subjects.any_request("rpc", "policy", "decide"), cb=others.decide)
        await broker.subscribe(subjects.any_request("rpc", "credential-broker", "lease"), cb=others.lend)
        await policy.flush()
        await broker.flush()
        service = build(AgentRuntimeSettings(home=bus.home.path, nats_url=bus.url, **settings), user_keys=OneKey())
        await service.start()
        await service._until_ready()
        for hook in service._on_ready:
            await hook()
        nc = await bus.connect_as_anyone()
        try:
            yield Acting(bus, service, others, desk, nc, sessions)
        finally:
            await nc.close()
            await service.shut_down()


def _write_home(bus: Bus, desk: Desk) -> None:
    home = bus.home.path
    for folder in (home / "tools", home / "agents" / TENANT, home / "sources" / TENANT):
        folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(home / "sources" / TENANT / "flights.sqlite")) as source:
        source.executescript(
            "CREATE TABLE flights (carrier TEXT, tailnum TEXT); INSERT INTO flights VALUES ('UA', 'N1')"
        )
    (home / "tools" / f"{TENANT}.yaml").write_text(
        "tools:\n"
        f"  - {{id: sql, kind: sql, source: sources/{TENANT}/flights.sqlite}}\n"
        "  - id: desk\n"
        "    kind: http\n"
        f'    url: "http://{desk.address}/{{word}}"\n'
        "    method: POST\n"
        "    connection: desk\n"
        "    parameters: {word: {type: string}}\n"
    )
    (home / "agents" / TENANT / "clerk.yaml").write_text("name: clerk\nmodel: scripted\ntools: [desk, sql]\n")
