"""The shapes of `decisions` as msgspec structs, for the hot path: same fields, bounds and bytes at less cost.

Example: `DecisionRequest.from_bytes(payload)`, or `ask(...)` to build one from plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from remit_contracts.decisions import DENIED, MAX_ID, MAX_NAME, MAX_ORDINAL, MAX_SCOPES, UNDECIDED
from remit_contracts.errors import Denied, MalformedCommand, Tampered

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Short = Annotated[str, Meta(max_length=MAX_ID)]
Ordinal = Annotated[int, Meta(ge=0, le=MAX_ORDINAL)]


class Subject(msgspec.Struct, frozen=True):
    """See `decisions.Subject`."""

    type: Name
    id: Id
    properties: dict[str, Any] = {}


class Action(msgspec.Struct, frozen=True):
    """See `decisions.Action`."""

    name: Name
    properties: dict[str, Any] = {}


class Resource(msgspec.Struct, frozen=True):
    """See `decisions.Resource`."""

    type: Name
    id: Id
    properties: dict[str, Any] = {}


class DecisionContext(msgspec.Struct, frozen=True):
    """See `decisions.DecisionContext`."""

    run: Short = ""
    ordinal: Ordinal | None = None
    args_digest: Short = ""
    session: Short = ""
    agent: Short = ""
    scopes: Annotated[tuple[Id, ...], Meta(max_length=MAX_SCOPES)] = ()


class DecisionRequest(msgspec.Struct, frozen=True):
    """See `decisions.DecisionRequest`."""

    subject: Subject
    action: Action
    resource: Resource
    context: DecisionContext = DecisionContext()

    @classmethod
    def from_bytes(cls, payload: bytes) -> DecisionRequest:
        """Decode; raises MalformedCommand, also for nesting that would exhaust the stack."""
        try:
            return _REQUESTS.decode(payload)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as fault:
            raise MalformedCommand(f"not a decision request (subject, action, resource, context): {fault}") from None

    def to_bytes(self) -> bytes:
        """Compact JSON."""
        return _ENCODER.encode(self)


class Reason(msgspec.Struct, frozen=True):
    """See `decisions.Reason`."""

    code: str
    message: str


class Obligation(msgspec.Struct, frozen=True):
    """See `decisions.Obligation`."""

    type: str
    properties: dict[str, Any]


class AnswerContext(msgspec.Struct, frozen=True):
    """See `decisions.AnswerContext`; `input` stays the raw JSON, so that its digest can be checked byte by byte."""

    decision_id: str
    reasons: tuple[Reason, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    bundle_digest: str = ""
    data_revision: str = ""
    permit: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")
    evaluated_at: str = ""


class DecisionAnswer(msgspec.Struct, frozen=True):
    """See `decisions.DecisionAnswer`."""

    decision: bool
    context: AnswerContext

    @classmethod
    def from_bytes(cls, payload: bytes) -> DecisionAnswer:
        """Decode an answer that is no refusal; raises Tampered for anything else, so that no odd answer allows."""
        try:
            return _ANSWERS.decode(payload)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as fault:
            raise Tampered(f"not a decision answer (decision, context): {fault}") from None

    def to_bytes(self) -> bytes:
        """Compact JSON with every field."""
        return _ENCODER.encode(self)

    @property
    def reason(self) -> str:
        """All reasons as one sentence, or an empty text."""
        return "; ".join(reason.message for reason in self.context.reasons)

    def recorded(self) -> dict[str, Any]:
        """All that is needed to decide again, as it goes into the asker's own event.

        `input` is the text that the engine was given, so that its digest can be checked.
        """
        context = self.context
        return {
            "decision_id": context.decision_id,
            "decision": self.decision,
            "reasons": [{"code": reason.code, "message": reason.message} for reason in context.reasons],
            "obligations": [{"type": duty.type, "properties": duty.properties} for duty in context.obligations],
            "bundle_digest": context.bundle_digest,
            "data_revision": context.data_revision,
            "evaluated_at": context.evaluated_at,
            "input": bytes(context.input).decode(),
        }

    @property
    def code(self) -> str:
        """The code of the refusal that a denial becomes."""
        undecided = (reason.code for reason in self.context.reasons if reason.code in UNDECIDED)
        return next(undecided, DENIED)

    def required(self) -> DecisionAnswer:
        """The answer itself when it allows; raises Denied with code, reasons and decision id."""
        if self.decision is True:
            return self
        raise Denied(self.reason or "policy denied it", code=self.code, decision_id=self.context.decision_id)


def ask(
    *,
    user: str,
    action: str,
    resource_type: str,
    resource_id: str,
    tenant: str,
    data_sources: Sequence[str] | None = None,
    context: DecisionContext | None = None,
) -> DecisionRequest:
    """The request "may `user` do `action` on that resource of `tenant`?"; a tool would read its `data_sources`."""
    properties: dict[str, Any] = {"tenant": tenant}
    if data_sources is not None:
        properties["data_sources"] = list(data_sources)
    return DecisionRequest(
        subject=Subject(type="user", id=user),
        action=Action(name=action),
        resource=Resource(type=resource_type, id=resource_id, properties=properties),
        context=context or DecisionContext(),
    )


_ENCODER = msgspec.json.Encoder()
_REQUESTS = msgspec.json.Decoder(DecisionRequest)
_ANSWERS = msgspec.json.Decoder(DecisionAnswer)
