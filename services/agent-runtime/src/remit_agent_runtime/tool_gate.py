"""The tool gate: the only way to a tool, for every agent of every framework.

    turn -> decide -> ToolCallAuthorized on disk, the lease asked for meanwhile -> only after both: the tool ->
    ToolCallCompleted on disk

A denial is recorded as ToolCallDenied and nothing else happens. An outcome that nobody knows is ToolCallUnknown, and
the call is never made again. What the journal already holds is answered from there.

While the broker is away, a call gives its turn up, and takes it again once it has its lease: calls that need no lease
go on. Without policy none could, so there a turn is kept: what waited for one with a permit would let it grow old.

A permit that is older than the tool host or the broker, because that restarted in between, calls nothing: this is a
failure on record, and the same call is decided anew under the next ordinal.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from remit_agent_runtime.domain import BudgetSpent
from remit_agent_runtime.facts import ToolCall as JournaledCall
from remit_agent_runtime.fairness import FairGate, Turn
from remit_agent_runtime.inhand import RunInHand
from remit_agent_runtime.model_gate import Diverged
from remit_agent_runtime.patience import nobody_decided, patiently
from remit_agent_runtime.tool_host_client import OutcomeUnknown, ToolCall, ToolOutcome
from remit_agent_runtime.toolhost.admission import BEFORE_START
from remit_agent_runtime.toolhost.catalog import ToolDescriptor
from remit_chassis.sessions import Ask
from remit_contracts.errors import Refusal, Unavailable
from remit_contracts.fast_decisions import DecisionAnswer, DecisionContext, ask
from remit_contracts.fast_leases import LeaseAnswer, LeaseRequest
from remit_contracts.leases import CONNECTION_SCOPE, PERMIT_BEFORE_START
from remit_contracts.permits import args_digest

DEADLINE_SECONDS: Final = 30.0
"""How long a tool may take."""
DECIDE_SECONDS: Final = 2.0
"""How long one question to policy may take."""
PATIENCE_SECONDS: Final = 10.0
"""How long policy is asked again when it, or what it needs, is away, as while it restarts; then there is no call. The
broker too: a permit is good for a little longer."""
LEASE_SECONDS: Final = 2.0
NEW_DECISIONS: Final = 2
"""How often a call whose permit came too early is decided anew."""


class ToolChanged(Refusal):
    """The tool is not the one that the run was accepted with."""

    code = "tool.changed"


class ToolHost(Protocol):
    """`ToolHostClient`, as far as the gate needs it."""

    def call(self, call: ToolCall) -> Coroutine[Any, Any, ToolOutcome]:
        """What the tool gave; raises OutcomeUnknown when nobody can know, and Unavailable when nothing was sent."""


@dataclass(frozen=True, slots=True)
class ToolReturn:
    """What became of a call. `error` is `{"code", "reason", "decision_id"}` for every outcome but `completed`."""

    ordinal: int
    outcome: Literal["completed", "failed", "denied", "unknown"]
    content: Any = None
    error: dict[str, Any] | None = None
    withheld: dict[str, Any] = field(default_factory=dict)


class ToolGate:
    """Shared by all runs of the process."""

    def __init__(
        self, *, ask: Ask, host: ToolHost, turns: FairGate, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._ask = ask
        self._host = host
        self._turns = turns
        self._patience_seconds = patience_seconds
        self._draining = False
        self._open = 0
        self._none_open = asyncio.Event()

    async def drain(self, within_seconds: float) -> None:
        """Begin no call any more; return when those that are authorised have an outcome on record, or after that time.

        Whoever asks for a call from now on waits until cancelled, with nothing recorded: a policy that is being stopped
        as well must not deny what it would allow.
        """
        self._draining = True
        if self._open:
            self._none_open.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_seconds):
                    await self._none_open.wait()

    async def call(self, hand: RunInHand, tool: ToolDescriptor, arguments: dict[str, Any]) -> ToolReturn:
        """Make the run's next tool call, or answer it from the journal; made anew while its permit came too early.

        Raises Diverged, BudgetSpent, Overloaded (nothing was recorded), ToolChanged, MalformedCommand (arguments that
        are no plain JSON), and what a save raises: after that the run in hand is stale.
        """
        digest = args_digest(arguments)
        returned = await self._once(hand, tool, arguments, digest)
        for _ in range(NEW_DECISIONS):
            if not _came_too_early(returned) or not _goes_on_with(hand, tool.id, digest):
                break
            try:
                returned = await self._once(hand, tool, arguments, digest)
            except BudgetSpent:
                break
        return returned

    async def _once(self, hand: RunInHand, tool: ToolDescriptor, arguments: dict[str, Any], digest: str) -> ToolReturn:
        if (recorded := _recorded(hand, tool.id, digest)) is not None:
            return recorded
        frozen = hand.run.bindings.get("tools", {}).get(tool.id)
        if frozen is not None and frozen != tool.digest:
            raise ToolChanged(f"the tool {tool.id!r} changed since run {hand.run.run_id} was accepted: start a new run")
        ordinal = hand.run.reserve_tool_call()
        turn = Turn(self._turns, hand.fair_key)
        await turn.take()
        try:
            returned = await self._call(hand, tool, arguments, digest, ordinal, turn)
        finally:
            turn.give_up()
        hand.tool_calls_made += 1
        return returned

    async def _call(
        self, hand: RunInHand, tool: ToolDescriptor, arguments: dict[str, Any], digest: str, ordinal: int, turn: Turn
    ) -> ToolReturn:
        try:
            answer = await self._decide(hand, tool, digest, ordinal)
        except Unavailable as silence:
            await self._unless_draining()
            return await self._denied(hand, tool, arguments, digest, ordinal, "", silence.refusal_code, silence.reason)
        await self._unless_draining()
        context = answer.context
        if answer.decision is not True or not context.permit:
            reason = answer.reason or "policy denied it"
            return await self._denied(hand, tool, arguments, digest, ordinal, context.decision_id, answer.code, reason)
        self._open += 1
        try:
            return await self._authorized(hand, tool, arguments, digest, ordinal, answer, context.permit, turn)
        finally:
            self._open -= 1
            if not self._open:
                self._none_open.set()

    async def _unless_draining(self) -> None:
        if self._draining:
            await asyncio.get_running_loop().create_future()

    async def _authorized(
        self,
        hand: RunInHand,
        tool: ToolDescriptor,
        arguments: dict[str, Any],
        digest: str,
        ordinal: int,
        answer: DecisionAnswer,
        permit: str,
        turn: Turn,
    ) -> ToolReturn:
        """The call that policy allowed, to its outcome."""
        run = hand.run
        run.authorize_tool_call(
            ordinal=ordinal,
            tool=tool.id,
            arguments=arguments,
            args_digest=digest,
            decision=answer.recorded(),
            permit=permit,
            at=hand.clock(),
        )
        saving = hand.save_later()
        leasing = asyncio.ensure_future(self._lease(hand, tool, permit, turn)) if tool.connection else None
        try:
            await saving.done()
        except BaseException:
            if leasing:
                leasing.cancel()
            raise
        try:
            lease = await leasing if leasing else None
            await turn.take()
        except Refusal as refused:
            error = refused.as_dict()["error"]
            return await self._completed(hand, ordinal, _never_called(error), lease_id="")
        try:
            outcome = await self._host.call(
                ToolCall(
                    permit=permit,
                    sealed_lease=lease.sealed if lease else None,
                    tool=tool.id,
                    arguments=arguments,
                    idempotency_key=f"{run.run_id}:{ordinal}",
                    deadline_seconds=DEADLINE_SECONDS,
                )
            )
        except OutcomeUnknown as lost:
            run.lose_tool_call(ordinal=ordinal, reason=str(lost), at=hand.clock())
            await hand.save()
            return returned_from(run.tool_calls[ordinal - 1])
        except Refusal as refused:
            outcome = _never_called(refused.as_dict()["error"])
        return await self._completed(hand, ordinal, outcome, lease_id=lease.lease_id if lease else "")

    async def _decide(self, hand: RunInHand, tool: ToolDescriptor, digest: str, ordinal: int) -> DecisionAnswer:
        request = ask(
            user=hand.user,
            action="tool.call",
            resource_type="tool",
            resource_id=tool.id,
            tenant=hand.tenant,
            data_sources=tool.data_sources,
            context=DecisionContext(
                run=hand.run.run_id,
                ordinal=ordinal,
                args_digest=digest,
                session=hand.run.session,
                agent=str(hand.run.agent.get("name", "")),
                scopes=_scopes(tool),
            ),
        )
        payload = request.to_bytes()

        async def ask_policy() -> DecisionAnswer:
            answer = await self._ask(
                hand.tenant, hand.user, "policy", "decide", payload, timeout_seconds=DECIDE_SECONDS
            )
            return DecisionAnswer.from_bytes(answer)

        return await patiently(ask_policy, seconds=self._patience_seconds, away=nobody_decided)

    async def _lease(self, hand: RunInHand, tool: ToolDescriptor, permit: str, turn: Turn) -> LeaseAnswer:
        request = LeaseRequest(permit=permit, tool=tool.id, connection=tool.connection or "", run=hand.run.run_id)
        payload = request.to_bytes()

        async def ask_broker() -> LeaseAnswer:
            answer = await self._ask(
                hand.tenant, hand.user, "credential-broker", "lease", payload, timeout_seconds=LEASE_SECONDS
            )
            return LeaseAnswer.from_bytes(answer)

        return await patiently(ask_broker, seconds=self._patience_seconds, waiting=turn.give_up)

    async def _denied(
        self,
        hand: RunInHand,
        tool: ToolDescriptor,
        arguments: dict[str, Any],
        digest: str,
        ordinal: int,
        decision_id: str,
        code: str,
        reason: str,
    ) -> ToolReturn:
        hand.run.deny_tool_call(
            ordinal=ordinal,
            tool=tool.id,
            arguments=arguments,
            args_digest=digest,
            decision_id=decision_id,
            code=code,
            reason=reason,
            at=hand.clock(),
        )
        await hand.save()
        return returned_from(hand.run.tool_calls[ordinal - 1])

    async def _completed(self, hand: RunInHand, ordinal: int, outcome: ToolOutcome, *, lease_id: str) -> ToolReturn:
        hand.run.complete_tool_call(
            ordinal=ordinal,
            ok=outcome.ok,
            result=outcome.content,
            error=outcome.error,
            withheld=outcome.withheld,
            lease_id=lease_id,
            cpu_seconds=outcome.cpu_seconds,
            wall_seconds=outcome.wall_seconds,
            at=hand.clock(),
        )
        await hand.save()
        return returned_from(hand.run.tool_calls[ordinal - 1])


def returned_from(call: JournaledCall) -> ToolReturn:
    """What a recorded call gave, the same at every replay."""
    if call.outcome == "authorized":
        raise Diverged(f"tool call {call.ordinal} is still open: a run that starts again closes it first")
    return ToolReturn(call.ordinal, call.outcome, call.result, call.error, call.withheld)


def _recorded(hand: RunInHand, tool: str, digest: str) -> ToolReturn | None:
    made = hand.tool_calls_made
    if made >= len(hand.run.tool_calls):
        return None
    recorded = hand.run.tool_calls[made]
    if (recorded.tool, recorded.args_digest) != (tool, digest):
        raise Diverged(
            f"tool call {recorded.ordinal} asks {tool!r} for something else than the recorded call: "
            "the agent is not deterministic, start a new run"
        )
    hand.tool_calls_made += 1
    return returned_from(recorded)


def _came_too_early(returned: ToolReturn) -> bool:
    """Whether nothing was called because tool host or broker is younger than the permit."""
    return returned.outcome == "failed" and (returned.error or {}).get("code") in (BEFORE_START, PERMIT_BEFORE_START)


def _goes_on_with(hand: RunInHand, tool: str, digest: str) -> bool:
    """Whether the run's next call is this one again: it is yet to be made, or the journal has it."""
    following = hand.run.tool_calls[hand.tool_calls_made : hand.tool_calls_made + 1]
    return all((call.tool, call.args_digest) == (tool, digest) for call in following)


def _scopes(tool: ToolDescriptor) -> tuple[str, ...]:
    """What the tool needs, and whose credential: a permit leases the connection that it names and no other."""
    return (f"{CONNECTION_SCOPE}{tool.connection}", *tool.scopes) if tool.connection else tool.scopes


def _never_called(error: dict[str, Any]) -> ToolOutcome:
    return ToolOutcome(ok=False, error=error)
