"""Runs: what a client asks of the agent runtime, what it is answered, and the progress that it can watch.

A run id is 32 lower-case hex digits. A run's status goes one way and ends in exactly one of the last three:

    accepted -> running (-> waiting -> running) -> completed | failed | cancelled

Progress is a JSON object on `remit.{tenant}.{user}.live.run.{run_id}`, one for each recorded event of the run. `seq`
is that event's version in the run: it grows, and an absent number was not announced (or was lost: `live` is never
stored).
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from remit_contracts.identity import Label
from remit_contracts.messages import Answer, Command

MAX_PROMPT_CHARACTERS: Final = 32_000
MAX_LISTED_RUNS: Final = 500

RUN_ID: Final = r"^[0-9a-f]{32}$"
ONE_LINE: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"


def _run_id(value: str) -> str:
    if not re.fullmatch(RUN_ID, value):
        raise ValueError("is no run id: 32 of 0-9 and a-f, as `remit runs list` shows them")
    return value


def _one_line(value: str) -> str:
    if not re.fullmatch(ONE_LINE, value):
        raise ValueError("must be one line without control characters")
    return value


RunId = Annotated[str, AfterValidator(_run_id), Field(json_schema_extra={"pattern": RUN_ID})]
IdempotencyKey = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128),
    AfterValidator(_one_line),
    Field(json_schema_extra={"pattern": ONE_LINE}),
]
"""Any text of one line: what ends a line or steers a terminal would make two keys look like one."""
RunStatus = Literal["accepted", "running", "waiting", "completed", "failed", "cancelled"]
StepType = Literal["model", "tool"]
StepOutcome = Literal["answered", "authorized", "denied", "completed", "failed", "unknown"]

ENDED: Final = frozenset({"completed", "failed", "cancelled"})
"""The statuses after which nothing more happens."""


class StartRun(Command):
    """Start `agent` on `prompt`.

    `session` names the conversation that the run belongs to; who is signed in comes from the subject and the inbox,
    never from here. The same `idempotency_key` of the same user gives the same run, whatever became of it; with
    another payload it is a Conflict.
    """

    agent: Label
    prompt: Annotated[str, StringConstraints(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
    session: Label | None = None
    idempotency_key: IdempotencyKey | None = None


class CancelRun(Command):
    """End a run that has not ended; another user's needs the permission `run.cancel`."""

    run_id: RunId


class ShowRun(Command):
    """Look at one run; another user's needs the permission `run.read`."""

    run_id: RunId


class ListRuns(Command):
    """One's own runs, newest first."""

    limit: Annotated[int, Field(ge=1, le=MAX_LISTED_RUNS)] = 100


class ListAgents(Command):
    """The agents that one may invoke."""


class RunStarted(Answer):
    """The run is durable: it ends in exactly one of the three ways, whatever fails meanwhile."""

    run_id: RunId
    status: RunStatus


class RunError(Answer):
    """Why a run failed, in the shape of a refusal."""

    code: str
    reason: str
    decision_id: str | None = None
    retry_after_seconds: float | None = None


class RunUsage(Answer):
    """What a run has used so far."""

    model_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


class RunStep(Answer):
    """One model call or one tool call, by its ordinal among its kind; `withheld` is what obligations kept back of
    its result."""

    type: StepType
    ordinal: int
    outcome: StepOutcome
    at: datetime
    model: str | None = None
    tool: str | None = None
    arguments: dict[str, Any] | None = None
    text: str | None = None
    result: Any = None
    error: RunError | None = None
    decision_id: str | None = None
    withheld: dict[str, Any] | None = None


class RunView(Answer):
    """One run as its user sees it. `withheld` holds, by tool, what obligations kept back."""

    run_id: RunId
    agent: str
    status: RunStatus
    accepted_at: datetime
    ended_at: datetime | None = None
    prompt: str = ""
    answer: str | None = None
    error: RunError | None = None
    usage: RunUsage = RunUsage()
    steps: tuple[RunStep, ...] = ()
    withheld: dict[str, dict[str, Any]] = Field(default={})


class RunRow(Answer):
    """One line of the list of runs."""

    run_id: RunId
    agent: str
    status: RunStatus
    accepted_at: datetime
    ended_at: datetime | None = None


class RunsListed(Answer):
    """Newest first; `more` when there are older ones that were not asked for."""

    runs: tuple[RunRow, ...]
    more: bool = False


class AgentRow(Answer):
    """An agent: `model` is what it would run on now, `digest` the SHA-256 of its definition in hex."""

    name: str
    description: str
    model: str
    tools: tuple[str, ...]
    digest: str


class AgentsListed(Answer):
    """By name."""

    agents: tuple[AgentRow, ...]


class Progress(Answer):
    """One message of a run's progress.

    `status`: accepted, running. `model`: a model asked for tools. `text`: a model said `text`. `tool`: a call is
    authorized, denied, completed, failed or unknown (`outcome`). `end`: the last one, with `status`, `answer` or
    `error`.
    """

    run_id: RunId
    seq: int
    type: Literal["status", "model", "text", "tool", "end"]
    at: datetime
    status: RunStatus | None = None
    model: str | None = None
    text: str | None = None
    tool: str | None = None
    ordinal: int | None = None
    outcome: StepOutcome | None = None
    decision_id: str | None = None
    withheld: dict[str, Any] | None = None
    answer: str | None = None
    error: RunError | None = None
