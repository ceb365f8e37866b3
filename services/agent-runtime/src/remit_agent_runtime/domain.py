"""A run: one agent, on one prompt, for one user, from its acceptance to exactly one end.

    RunError                      code
    +-- RunHasEnded               run.ended
    +-- RunHasNotStarted          run.not_started
    +-- OutOfOrder                run.out_of_order        an ordinal that is not the next one
    +-- NotAuthorized             run.not_authorized      an outcome without an open authorisation
    +-- BudgetSpent               run.budget_spent        the agent's limit of calls is reached

Model calls and tool calls are counted from 1, each by their own ordinal; one tool call is open at a time. What is
recorded in a call is what a replay answers from, so nothing is ever executed twice. Events hold plain JSON values;
instants are the events' timestamps.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from eventsourcing.domain import Aggregate

from remit_agent_runtime import facts
from remit_agent_runtime.facts import ModelCall, ToolCall, Usage

Status = Literal["accepted", "running", "completed", "failed", "cancelled"]
ENDED: Final = ("completed", "failed", "cancelled")


class RunError(Exception):
    """A rule of runs was broken; `code` is stable and dotted."""

    code = "run.error"


class RunHasEnded(RunError):
    """Nothing may follow the end."""

    code = "run.ended"


class RunHasNotStarted(RunError):
    """Calls belong to started runs."""

    code = "run.not_started"


class OutOfOrder(RunError):
    """An ordinal that is not the next: the call was made already, or one is missing."""

    code = "run.out_of_order"


class NotAuthorized(RunError):
    """An outcome of a call that is not open."""

    code = "run.not_authorized"


class BudgetSpent(RunError):
    """No further call of this kind."""

    code = "run.budget_spent"


class Run(Aggregate):
    """The aggregate. Its id is the run id (`run_id` in 32 hex digits)."""

    TOPIC = "runtime.Run"
    Event = facts.RunEvent
    Created = facts.Accepted
    Started = facts.Started
    ModelCalled = facts.ModelCalled
    ToolCallAuthorized = facts.ToolCallAuthorized
    ToolCallDenied = facts.ToolCallDenied
    ToolCallCompleted = facts.ToolCallCompleted
    ToolCallUnknown = facts.ToolCallUnknown
    Metered = facts.Metered
    Completed = facts.Completed
    Failed = facts.Failed
    Cancelled = facts.Cancelled

    def __init__(
        self,
        *,
        user: str,
        session: str,
        conversation: str,
        prompt: str,
        idempotency_key: str,
        agent: dict[str, Any],
        bindings: dict[str, Any],
        decision: dict[str, Any],
    ) -> None:
        self.user = user
        self.session = session
        self.conversation = conversation
        self.prompt = prompt
        self.idempotency_key = idempotency_key
        self.agent = agent
        self.bindings = bindings
        self.invocation = decision
        self.status: Status = "accepted"
        self.attempts = 0
        self.model_calls: list[ModelCall] = []
        self.tool_calls: list[ToolCall] = []
        self.open_call = 0
        self.usage = Usage()
        self.answer = ""
        self.error: dict[str, Any] | None = None
        self.ended_at: datetime | None = None

    @classmethod
    def accept(
        cls,
        *,
        run_id: UUID,
        user: str,
        session: str,
        conversation: str,
        prompt: str,
        idempotency_key: str,
        agent: dict[str, Any],
        bindings: dict[str, Any],
        decision: dict[str, Any],
        at: datetime,
    ) -> Run:
        """A run that is owed from now on."""
        return cls._create(
            cls.Created,
            id=run_id,
            timestamp=at,
            user=user,
            session=session,
            conversation=conversation,
            prompt=prompt,
            idempotency_key=idempotency_key,
            agent=agent,
            bindings=bindings,
            decision=decision,
        )

    @property
    def run_id(self) -> str:
        """32 hex digits."""
        return self.id.hex

    @property
    def has_ended(self) -> bool:
        """Whether its terminal event is there."""
        return self.status in ENDED

    @property
    def limits(self) -> dict[str, Any]:
        """The agent's limits, frozen at acceptance: `{"model_calls", "tool_calls", "seconds"}`."""
        return dict(self.agent.get("limits") or {})

    def asked_the_same(self, *, agent: str, prompt: str, conversation: str) -> bool:
        """Whether a request with this run's idempotency key is the one that began it."""
        return (self.agent.get("name"), self.prompt, self.conversation) == (agent, prompt, conversation)

    # -- what happens to it ----------------------------------------------------------------------------------------

    def start(self, *, at: datetime) -> None:
        """A worker takes it up, for the first time or after a crash. A call left open then has an unknown outcome."""
        self._must_not_have_ended()
        self.trigger_event(self.Started, timestamp=at, attempt=self.attempts + 1)
        self.abandon_open_call(reason="the runtime ended before the tool's answer was recorded", at=at)

    def reserve_model_call(self) -> int:
        """The next model call's ordinal; raises BudgetSpent."""
        self._must_be_running()
        ordinal = len(self.model_calls) + 1
        self._within("model_calls", ordinal, "model calls")
        return ordinal

    def record_model_call(
        self,
        *,
        ordinal: int,
        model: str,
        request_hash: str,
        response: dict[str, Any],
        input_tokens: int,
        output_tokens: int,
        wall_seconds: float,
        at: datetime,
    ) -> None:
        """A model answered the call with this ordinal."""
        self._must_be_next(ordinal, len(self.model_calls))
        self.trigger_event(
            self.ModelCalled,
            timestamp=at,
            ordinal=ordinal,
            model=model,
            request_hash=request_hash,
            response=response,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            wall_seconds=wall_seconds,
        )

    def reserve_tool_call(self) -> int:
        """The next tool call's ordinal; raises BudgetSpent."""
        self._must_be_running()
        if self.open_call:
            raise OutOfOrder(f"tool call {self.open_call} of run {self.run_id} is still open")
        ordinal = len(self.tool_calls) + 1
        self._within("tool_calls", ordinal, "tool calls")
        return ordinal

    def authorize_tool_call(
        self,
        *,
        ordinal: int,
        tool: str,
        arguments: dict[str, Any],
        args_digest: str,
        decision: dict[str, Any],
        permit: str,
        at: datetime,
    ) -> None:
        """Policy allowed the next tool call."""
        self._must_be_next(ordinal, len(self.tool_calls))
        self._within("tool_calls", ordinal, "tool calls")
        if self.open_call:
            raise OutOfOrder(f"tool call {self.open_call} of run {self.run_id} is still open")
        self.trigger_event(
            self.ToolCallAuthorized,
            timestamp=at,
            ordinal=ordinal,
            tool=tool,
            arguments=arguments,
            args_digest=args_digest,
            decision=decision,
            permit=permit,
        )

    def deny_tool_call(
        self,
        *,
        ordinal: int,
        tool: str,
        arguments: dict[str, Any],
        args_digest: str,
        decision_id: str,
        code: str,
        reason: str,
        at: datetime,
    ) -> None:
        """Policy refused the next tool call."""
        self._must_be_next(ordinal, len(self.tool_calls))
        self.trigger_event(
            self.ToolCallDenied,
            timestamp=at,
            ordinal=ordinal,
            tool=tool,
            arguments=arguments,
            args_digest=args_digest,
            decision_id=decision_id,
            code=code,
            reason=reason,
        )

    def complete_tool_call(
        self,
        *,
        ordinal: int,
        ok: bool,
        result: Any,
        error: dict[str, Any] | None,
        withheld: dict[str, Any],
        lease_id: str,
        cpu_seconds: float,
        wall_seconds: float,
        at: datetime,
    ) -> None:
        """The open call has an outcome."""
        self._must_be_open(ordinal)
        self.trigger_event(
            self.ToolCallCompleted,
            timestamp=at,
            ordinal=ordinal,
            ok=ok,
            result=result,
            error=error,
            withheld=withheld,
            lease_id=lease_id,
            cpu_seconds=cpu_seconds,
            wall_seconds=wall_seconds,
        )

    def lose_tool_call(self, *, ordinal: int, reason: str, at: datetime) -> None:
        """Nobody can say what became of the open call."""
        self._must_be_open(ordinal)
        self.trigger_event(self.ToolCallUnknown, timestamp=at, ordinal=ordinal, reason=reason)

    def abandon_open_call(self, *, reason: str, at: datetime) -> None:
        """The same, for whichever call is open, if one is."""
        if self.open_call:
            self.lose_tool_call(ordinal=self.open_call, reason=reason, at=at)

    def complete(self, *, answer: str, cpu_seconds: float, at: datetime) -> None:
        """The agent answered. `cpu_seconds` is what the worker itself used; tools' CPU is added to it."""
        self._must_be_running()
        if self.open_call:
            raise OutOfOrder(f"tool call {self.open_call} of run {self.run_id} is still open")
        self._meter(cpu_seconds, at)
        self.trigger_event(self.Completed, timestamp=at, answer=answer)

    def fail(self, *, error: dict[str, Any], cpu_seconds: float, at: datetime) -> None:
        """It cannot go on."""
        self._must_not_have_ended()
        self.abandon_open_call(reason="the run failed before the tool's answer was recorded", at=at)
        self._meter(cpu_seconds, at)
        self.trigger_event(self.Failed, timestamp=at, error=error)

    def cancel(self, *, by: str, cpu_seconds: float, at: datetime) -> None:
        """`by` ended it."""
        self._must_not_have_ended()
        self.abandon_open_call(reason="the run was cancelled before the tool's answer was recorded", at=at)
        self._meter(cpu_seconds, at)
        self.trigger_event(self.Cancelled, timestamp=at, by=by)

    # -- rules -----------------------------------------------------------------------------------------------------

    def _meter(self, cpu_seconds: float, at: datetime) -> None:
        self.trigger_event(
            self.Metered,
            timestamp=at,
            agent=str(self.agent.get("name", "")),
            model=str(self.bindings.get("model", "")),
            model_calls=self.usage.model_calls,
            tool_calls=self.usage.tool_calls,
            input_tokens=self.usage.input_tokens,
            output_tokens=self.usage.output_tokens,
            cpu_seconds=round(self.usage.cpu_seconds + cpu_seconds, 6),
            wall_seconds=round((at - self.created_on).total_seconds(), 6),
        )

    def _must_not_have_ended(self) -> None:
        if self.has_ended:
            raise RunHasEnded(f"run {self.run_id} has already {self.status}")

    def _must_be_running(self) -> None:
        self._must_not_have_ended()
        if self.status != "running":
            raise RunHasNotStarted(f"run {self.run_id} is {self.status}, not running")

    def _must_be_next(self, ordinal: int, made: int) -> None:
        self._must_be_running()
        if ordinal != made + 1:
            raise OutOfOrder(f"call {ordinal} of run {self.run_id} was given, {made + 1} is the next one")

    def _must_be_open(self, ordinal: int) -> None:
        self._must_be_running()
        if not self.open_call or ordinal != self.open_call:
            raise NotAuthorized(
                f"tool call {ordinal} of run {self.run_id} is not open: it has no authorisation, or an outcome"
            )

    def _within(self, limit: str, ordinal: int, what: str) -> None:
        allowed = self.agent.get("limits", {}).get(limit)
        if isinstance(allowed, int) and ordinal > allowed:
            raise BudgetSpent(
                f"the agent may make {allowed} {what} a run and has made them: raise limits.{limit} if it needs more"
            )
