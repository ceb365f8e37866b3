"""The facts of a run, as they are stored: plain JSON values, under topics that are stated and never change.

What an event does to a run is in its `apply`, which never raises: the rules were kept before it was recorded
(`domain.Run`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from eventsourcing.domain import Aggregate

CallOutcome = Literal["authorized", "denied", "completed", "failed", "unknown"]


@dataclass(slots=True)
class ModelCall:
    """A journaled model call: `request_hash` is SHA-256 in hex over what was asked, `response` the answer as JSON."""

    ordinal: int
    model: str
    request_hash: str
    response: dict[str, Any]
    input_tokens: int
    output_tokens: int
    at: datetime


@dataclass(slots=True)
class ToolCall:
    """A journaled tool call and, once known, what became of it; `error` is `{"code", "reason", "decision_id"}`."""

    ordinal: int
    tool: str
    arguments: dict[str, Any]
    args_digest: str
    outcome: CallOutcome
    at: datetime
    decision_id: str = ""
    result: Any = None
    error: dict[str, Any] | None = None
    withheld: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Usage:
    """What was used; CPU and wall time in seconds."""

    model_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


class RunEvent(Aggregate.Event):
    """Of this aggregate."""

    def apply(self, run: Any) -> None:
        """Change the run; never raises."""


class Accepted(Aggregate.Created, RunEvent):
    """The run is owed to `user`. `agent` is its whole definition and `bindings` what was looked up once and holds for
    the run: `{"agent_digest", "model", "tools": {id: digest}}`; `decision` is the decision about `agent.invoke`."""

    TOPIC = "runtime.Run.Accepted"
    user: str
    session: str
    conversation: str
    prompt: str
    idempotency_key: str
    agent: dict[str, Any]
    bindings: dict[str, Any]
    decision: dict[str, Any]


class Started(RunEvent):
    """A worker took the run up; `attempt` is 1, and more after a crash."""

    TOPIC = "runtime.Run.Started"
    attempt: int

    def apply(self, run: Any) -> None:
        """Running."""
        run.status = "running"
        run.attempts = self.attempt


class ModelCalled(RunEvent):
    """A model answered."""

    TOPIC = "runtime.Run.ModelCalled"
    ordinal: int
    model: str
    request_hash: str
    response: dict[str, Any]
    input_tokens: int
    output_tokens: int
    wall_seconds: float

    def apply(self, run: Any) -> None:
        """Keep it for replay."""
        run.model_calls.append(
            ModelCall(
                self.ordinal,
                self.model,
                self.request_hash,
                self.response,
                self.input_tokens,
                self.output_tokens,
                self.timestamp,
            )
        )
        run.usage.model_calls += 1
        run.usage.input_tokens += self.input_tokens
        run.usage.output_tokens += self.output_tokens


class ToolCallAuthorized(RunEvent):
    """Policy allowed the call, and this is durable before anything happens.

    `decision` is whole: `{"decision_id", "input", "reasons", "obligations", "bundle_digest", "data_revision",
    "evaluated_at"}`, where `input` is the text of the JSON that the engine was given. `permit` is the token that the
    effect needs.
    """

    TOPIC = "runtime.Run.ToolCallAuthorized"
    ordinal: int
    tool: str
    arguments: dict[str, Any]
    args_digest: str
    decision: dict[str, Any]
    permit: str

    def apply(self, run: Any) -> None:
        """Open the call."""
        run.tool_calls.append(
            ToolCall(
                self.ordinal,
                self.tool,
                self.arguments,
                self.args_digest,
                "authorized",
                self.timestamp,
                decision_id=str(self.decision.get("decision_id", "")),
            )
        )
        run.open_call = self.ordinal
        run.usage.tool_calls += 1


class ToolCallDenied(RunEvent):
    """Policy refused the call, or could not allow it; the decision itself is recorded by policy under `decision_id`."""

    TOPIC = "runtime.Run.ToolCallDenied"
    ordinal: int
    tool: str
    arguments: dict[str, Any]
    args_digest: str
    decision_id: str
    code: str
    reason: str

    def apply(self, run: Any) -> None:
        """Keep it for replay."""
        run.tool_calls.append(
            ToolCall(
                self.ordinal,
                self.tool,
                self.arguments,
                self.args_digest,
                "denied",
                self.timestamp,
                decision_id=self.decision_id,
                error={"code": self.code, "reason": self.reason, "decision_id": self.decision_id or None},
            )
        )


class ToolCallCompleted(RunEvent):
    """The tool answered (`ok`), or it is certain that it did not do it: then `error` says why."""

    TOPIC = "runtime.Run.ToolCallCompleted"
    ordinal: int
    ok: bool
    result: Any
    error: dict[str, Any] | None
    withheld: dict[str, Any]
    lease_id: str
    cpu_seconds: float
    wall_seconds: float

    def apply(self, run: Any) -> None:
        """Close the call."""
        call = run.tool_calls[self.ordinal - 1]
        call.outcome = "completed" if self.ok else "failed"
        call.result, call.error, call.withheld = self.result, self.error, self.withheld
        run.open_call = 0
        run.usage.cpu_seconds += self.cpu_seconds


class ToolCallUnknown(RunEvent):
    """Nobody knows whether the tool did it. It is never called again under this ordinal."""

    TOPIC = "runtime.Run.ToolCallUnknown"
    ordinal: int
    reason: str

    def apply(self, run: Any) -> None:
        """Close the call."""
        call = run.tool_calls[self.ordinal - 1]
        call.outcome = "unknown"
        call.error = {"code": "tool.outcome_unknown", "reason": self.reason, "decision_id": None}
        run.open_call = 0


class Metered(RunEvent):
    """What the whole run used, stated once, at its end."""

    TOPIC = "runtime.Run.Metered"
    agent: str
    model: str
    model_calls: int
    tool_calls: int
    input_tokens: int
    output_tokens: int
    cpu_seconds: float
    wall_seconds: float

    def apply(self, run: Any) -> None:
        """The final figures."""
        run.usage.cpu_seconds = self.cpu_seconds
        run.usage.wall_seconds = self.wall_seconds


class Completed(RunEvent):
    """The agent answered."""

    TOPIC = "runtime.Run.Completed"
    answer: str

    def apply(self, run: Any) -> None:
        """The end."""
        run.status, run.answer, run.ended_at = "completed", self.answer, self.timestamp


class Failed(RunEvent):
    """It cannot go on; `error` is `{"code", "reason", "decision_id"}`."""

    TOPIC = "runtime.Run.Failed"
    error: dict[str, Any]

    def apply(self, run: Any) -> None:
        """The end."""
        run.status, run.error, run.ended_at = "failed", self.error, self.timestamp


class Cancelled(RunEvent):
    """Somebody who may ended it: `by` is a user id."""

    TOPIC = "runtime.Run.Cancelled"
    by: str

    def apply(self, run: Any) -> None:
        """The end."""
        run.status, run.ended_at = "cancelled", self.timestamp
        run.error = {"code": "run.cancelled", "reason": f"cancelled by {self.by}", "decision_id": None}
