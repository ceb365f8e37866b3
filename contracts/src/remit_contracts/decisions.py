"""The question "may they?" and its answer, in the shapes of the AuthZEN Authorization API 1.0.

Asked on `remit.{tenant}.{user}.rpc.policy.decide`, about the user whom the subject names. A denied decision is an
answer (`decision: false`), never an error. Unknown fields are ignored on both sides, as AuthZEN asks. `fast_decisions`
holds the same shapes for the hot path; a test keeps the two alike.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from remit_contracts.errors import MalformedCommand
from remit_contracts.faults import in_words
from remit_contracts.messages import Answer, Command

ACTIONS: Final = frozenset(
    {
        "admin.audit",
        "admin.configure",
        "admin.operate",
        "agent.invoke",
        "connection.add",
        "connection.read",
        "connection.revoke",
        "connection.share",
        "connection.test",
        "data.read",
        "field.protect",
        "field.read",
        "lease.read",
        "lease.revoke",
        "model.call",
        "role.assign",
        "role.define",
        "role.read",
        "role.remove",
        "run.cancel",
        "run.read",
        "tool.call",
        "trail.read",
        "user.disable",
        "user.enable",
        "user.read",
        "user.register",
    }
)
"""Every action that can be granted; the base policy denies all others. A permission's `role.*` is each `role.` one."""

MAX_ID = 256
MAX_NAME = 64
MAX_SCOPES = 64
MAX_ORDINAL = 2**31 - 1

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Short = Annotated[str, Field(max_length=MAX_ID)]


DENIED: Final = "policy.denied"
"""The code of every refusal that the policy decided; which rules it was, the recorded reasons say."""

UNDECIDED: Final = frozenset(
    {
        "policy.deadline",
        "policy.directory_unavailable",
        "policy.engine_failed",
        "policy.engine_unreachable",
        "policy.odd_result",
        "policy.overloaded",
        "policy.undefined",
    }
)
"""Reasons of a denial that no policy decided: their codes are the refusal's own, so that somebody looks after them."""


class _Shape(BaseModel):
    """Frozen, strict about types, tolerant of unknown fields."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Subject(_Shape):
    """Whom it is about. `properties` are the platform's to fill: what a request says there is not believed."""

    type: Name
    id: Id
    properties: dict[str, Any] = {}


class Action(_Shape):
    """What they want to do: one of ACTIONS."""

    name: Name
    properties: dict[str, Any] = {}


class Resource(_Shape):
    """On what. The base policy reads its `tenant` (required) and, of tools, `data_sources`: a list of ids."""

    type: Name
    id: Id
    properties: dict[str, Any] = {}


class DecisionContext(_Shape):
    """Around what. A permit is issued only to a tool call that names run, ordinal and args_digest."""

    run: Short = ""
    ordinal: Annotated[int, Field(ge=0, le=MAX_ORDINAL)] | None = None
    args_digest: Short = ""
    session: Short = ""
    agent: Short = ""
    scopes: Annotated[tuple[Id, ...], Field(max_length=MAX_SCOPES, strict=False)] = ()


class DecisionRequest(_Shape):
    """AuthZEN's evaluation request."""

    subject: Subject
    action: Action
    resource: Resource
    context: DecisionContext = DecisionContext()

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Decode; raises MalformedCommand naming the bad fields, never showing their values."""
        try:
            return cls.model_validate_json(payload)
        except ValidationError as invalid:
            raise MalformedCommand(
                f"not a decision request (subject, action, resource, context): {in_words(invalid)}"
            ) from None

    def to_bytes(self) -> bytes:
        """Compact JSON."""
        return self.model_dump_json().encode()


class Reason(_Shape):
    """Why not: a stable dotted code (`policy.no_grant`) and a sentence for people."""

    code: str
    message: str


class Obligation(_Shape):
    """What the enforcer must do with an allowed result; one that it does not know means deny.

    `mask_fields` {"fields": [names]}, `max_rows` {"limit": n}, `row_filter` {"column", "op": "in", "values": [...]}.
    Several row filters hold together (and).
    """

    type: str
    properties: dict[str, Any]


class AnswerContext(_Shape):
    """What made the decision, complete enough to decide it again.

    `input` is exactly what the engine was given; `data_revision` is the revision of the tenant's roles that it used
    (empty when it used none); `bundle_digest` is the SHA-256 of the policies in hex; `evaluated_at` is RFC 3339 in UTC.
    """

    decision_id: str
    reasons: tuple[Reason, ...] = Field(default=(), strict=False)
    obligations: tuple[Obligation, ...] = Field(default=(), strict=False)
    bundle_digest: str = ""
    data_revision: str = ""
    permit: str | None = None
    input: dict[str, Any] = {}
    evaluated_at: str = ""


class DecisionAnswer(_Shape):
    """AuthZEN's evaluation response. Only a literal `true` allows."""

    decision: bool
    context: AnswerContext

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Decode an answer that is no refusal."""
        return cls.model_validate_json(payload)

    def to_bytes(self) -> bytes:
        """Compact JSON with every field."""
        return self.model_dump_json().encode()


class PolicyInfo(Answer):
    """What decides: `opa` or `embedded`, and the SHA-256 in hex of the policies in force."""

    engine: str
    bundle_digest: str


class Redecide(Command):
    """Decide a recorded engine input again; with `bundle_digest`, only if those policies are the ones in force."""

    input: dict[str, Any]
    bundle_digest: Short | None = None


class Redecided(Answer):
    """What it would be now: the same as recorded where `bundle_digest` and `data_revision` are, else perhaps not."""

    decision: bool
    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...]
    bundle_digest: str
    data_revision: str
