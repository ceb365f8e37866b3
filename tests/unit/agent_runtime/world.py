"""A runtime without a bus: real event store, gates and agent loop; policy, broker and tools stand beside it here.

What stands in for the other services speaks their contracts' bytes, so the gate cannot tell.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import orjson

from remit_agent_runtime import facts
from remit_agent_runtime.domain import Run
from remit_agent_runtime.fairness import FairGate
from remit_agent_runtime.inhand import RunInHand
from remit_agent_runtime.loop import run_agent
from remit_agent_runtime.tool_gate import ToolGate
from remit_agent_runtime.tool_host_client import ToolCall, ToolOutcome
from remit_agent_runtime.toolhost.catalog import ToolDescriptor
from remit_agent_runtime.worker import Worker
from remit_chassis.eventstore.chain import Chain
from remit_chassis.eventstore.recorders import open_sqlite
from remit_chassis.eventstore.store import EventStore
from remit_contracts import fast_decisions
from remit_contracts.directory import DescribeSession, SessionDescribed
from remit_contracts.errors import NotSignedIn, Refusal
from remit_contracts.fast_leases import LeaseAnswer, LeaseRequest

TENANT, USER = "acme", "u-analyst"

SQL = ToolDescriptor(
    id="sql",
    kind="sql",
    description="Answers one SQL SELECT. Tables: airlines(carrier, name); flights(carrier, origin, dest, tailnum).",
    parameters={"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]},
    data_sources=("sql",),
)
DOCS = ToolDescriptor(
    id="docs",
    kind="documents",
    description="Finds passages.",
    parameters={
        "type": "object",
        "properties": {"query": {"type": "string", "maxLength": 1000}, "limit": {"type": "integer"}},
        "required": ["query"],
    },
    data_sources=("docs",),
)
DESK = ToolDescriptor(
    id="weather-desk",
    kind="http",
    description="Asks the desk.",
    parameters={"type": "object", "properties": {"airport": {"type": "string"}}, "required": ["airport"]},
    connection="weather-desk",
    scopes=("conditions.read",),
)
TOOLS = {tool.id: tool for tool in (SQL, DOCS, DESK)}


class Keys:
    """One key a user, from its name."""

    def cached(self, tenant: str, user: str) -> bytes:
        return hashlib.sha256(f"{tenant}/{user}".encode()).digest()

    async def key(self, tenant: str, user: str) -> bytes:
        return self.cached(tenant, user)

    def forget(self, tenant: str, user: str) -> None:
        """Nothing is kept."""


class Clock:
    """Moves a second at each look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


class OtherServices:
    """Policy, broker and auth: allow, lease and know every session, unless told otherwise. `asked` holds every question as (verb, request)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.denied: dict[str, str] = {}
        self.denied_with = "policy.no_grant"
        self.refuses_lease: Refusal | None = None
        self.policy_is_silent: Exception | None = None
        self.auth_is_silent: Exception | None = None
        self.ended_sessions: set[str] = set()
        self.sessions_asked = 0
        self.before_answer: Callable[[str], Any] = lambda verb: None

    async def ask(
        self, tenant: str, user: str, service: str, verb: str, payload: bytes, *, timeout_seconds: float
    ) -> bytes:
        if verb == "describe-session":
            return self._describe(DescribeSession.from_bytes(payload).session)
        if verb == "decide":
            request = fast_decisions.DecisionRequest.from_bytes(payload)
            self.asked.append((verb, request))
            self.before_answer(verb)
            if self.policy_is_silent:
                raise self.policy_is_silent
            return self._decide(request).to_bytes()
        lease = LeaseRequest.from_bytes(payload)
        self.asked.append((verb, lease))
        self.before_answer(verb)
        if self.refuses_lease:
            raise self.refuses_lease
        return LeaseAnswer(lease_id="l-1", sealed="c2VhbGVk", expires_at=datetime(2026, 1, 31, tzinfo=UTC)).to_bytes()

    def _describe(self, session: str) -> bytes:
        self.sessions_asked += 1
        if self.auth_is_silent:
            raise self.auth_is_silent
        if session in self.ended_sessions:
            raise NotSignedIn("the session has ended, or was never this user's", code="auth.session_ended")
        return SessionDescribed(session=session, expires_at=datetime(2100, 1, 1, tzinfo=UTC)).to_bytes()

    def _decide(self, request: fast_decisions.DecisionRequest) -> fast_decisions.DecisionAnswer:
        number = sum(verb == "decide" for verb, _ in self.asked)
        refused = self.denied.get(request.resource.id)
        is_call = request.action.name == "tool.call"
        return fast_decisions.DecisionAnswer(
            decision=refused is None,
            context=fast_decisions.AnswerContext(
                decision_id=f"d-{number}",
                reasons=(fast_decisions.Reason(self.denied_with, refused),) if refused else (),
                obligations=(fast_decisions.Obligation("max_rows", {"limit": 5}),) if is_call else (),
                bundle_digest="b" * 64,
                data_revision="r1",
                permit=f"permit-{number}" if is_call and refused is None else None,
                input=msgspec.Raw(orjson.dumps({"action": request.action.name})),
                evaluated_at="2026-01-31T09:30:00Z",
            ),
        )


class Tools:
    """The tool host: `answers` by tool, an outcome, an exception or a function of the call; keeps every call."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.answers: dict[str, Any] = {}

    def hang(self, tool: str = "sql") -> asyncio.Event:
        """That tool never answers from now on; the event says that it was called."""
        reached = asyncio.Event()

        async def never(call: ToolCall) -> ToolOutcome:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

        self.answers[tool] = never
        return reached

    async def call(self, call: ToolCall) -> ToolOutcome:
        self.calls.append(call)
        answer = self.answers.get(call.tool, ToolOutcome(ok=True, content=f"{call.tool} says so", cpu_seconds=0.25))
        if callable(answer):
            answer = answer(call)
            if asyncio.iscoroutine(answer):
                answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, ToolOutcome)
        return answer


class World:
    """The runtime's parts, composed as in `__main__`, around one store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()
        self.services = OtherServices()
        self.host = Tools()
        self.turns = FairGate(in_flight=8, in_flight_per_user=7)
        self.tools: Mapping[str, ToolDescriptor] = TOOLS
        self.readers = ThreadPoolExecutor(2)
        self.messages: list[dict[str, Any]] = []
        self.store = self.open_store()
        self.gate = ToolGate(ask=self.services.ask, host=self.host, turns=self.turns, patience_seconds=0.0)
        self.worker = self.new_worker()

    def open_store(self) -> EventStore:
        chain = Chain("agent-runtime", TENANT)
        return EventStore(
            chain,
            lambda: open_sqlite(self.directory / f"{TENANT}.sqlite", chain),
            Keys(),
            clock=self.clock,
            readers=self.readers,
        )

    def of(self, tenant: str) -> EventStore:
        assert tenant == TENANT
        return self.store

    def tenants(self) -> list[str]:
        return [TENANT]

    def new_worker(self) -> Worker:
        return Worker(
            stores=self,
            tools_of=lambda tenant: self.tools,
            run_agent=lambda hand, tools: run_agent(hand, gate=self.gate, tools=tools),
            clock=self.clock,
            announce=self.note,
        )

    async def note(self, hand: RunInHand, events: Any) -> None:
        from remit_agent_runtime.live import said_of

        self.messages += [said | {"seq": event.originator_version} for event in events if (said := said_of(event))]

    async def accept(self, prompt: str, *, user: str = USER, number: int = 1, **agent: Any) -> UUID:
        """A stored, accepted run."""
        run = new_run(prompt, user=user, number=number, at=self.clock(), **agent)
        await self.store.save(run, user=user)
        return run.id

    async def events(self) -> list[Any]:
        """All events of the store, decoded: from the database, for what is read from memory may be a moment older."""
        stored = await self.store._read(lambda recorder: recorder.select_envelopes(1, 10_000))
        return [await self.store.decode(envelope) for envelope in stored]

    async def load(self, run_id: UUID) -> Run:
        return await self.store.load(Run, run_id)

    async def hand(self, prompt: str = "p", **agent: Any) -> RunInHand:
        """A run in hand that has started, for the gates alone."""
        run_id = await self.accept(prompt, **agent)
        hand = await self.worker.take(TENANT, run_id)
        hand.run.start(at=self.clock())
        await hand.save()
        return hand


def new_run(prompt: str, *, user: str = USER, number: int = 1, at: datetime, **agent: Any) -> Run:
    definition = {
        "name": "analyst",
        "instructions": "Answer from the data.",
        "tools": ["sql", "docs", "weather-desk"],
        "limits": {"model_calls": 20, "tool_calls": 20, "seconds": 30.0},
        "on_denied": "stop",
        "script": [],
        **agent,
    }
    return Run.accept(
        run_id=UUID(int=number),
        user=user,
        session="s-1",
        conversation="",
        prompt=prompt,
        idempotency_key="",
        agent=definition,
        bindings={"model": "scripted", "tools": {}, "agent_digest": ""},
        decision={"decision_id": "d-0"},
        at=at,
    )


def kinds(events: list[Any]) -> list[str]:
    """`ToolCallAuthorized`, ... of events."""
    return [type(event).__name__ for event in events]


def script(*steps: tuple[str, dict[str, Any]], answer: str = "done: {result}") -> str:
    """A prompt that is a script."""
    return orjson.dumps(
        {"script": [*({"call": {"tool": tool, "args": args}} for tool, args in steps), {"answer": answer}]}
    ).decode()


@contextmanager
def world_in(directory: Path) -> Iterator[World]:
    """Closed readers leave no thread behind."""
    world = World(directory)
    try:
        yield world
    finally:
        world.readers.shutdown()


__all__ = [
    "DESK",
    "DOCS",
    "SQL",
    "TENANT",
    "TOOLS",
    "USER",
    "Tools",
    "World",
    "facts",
    "kinds",
    "new_run",
    "script",
    "world_in",
]
