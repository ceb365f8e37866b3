"""The pure part of deciding: what the engine is given, and what its result means.

Denied
+-- ForeignSubject   policy.foreign_subject   a request about another user or tenant than the subject proves
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from remit_contracts.errors import Denied, MalformedCommand
from remit_contracts.fast_decisions import AnswerContext, DecisionRequest, Obligation, Reason
from remit_contracts.identity import Caller

MAX_DEPTH = 16

UNDEFINED = "policy.undefined"
ODD_RESULT = "policy.odd_result"


class ForeignSubject(Denied):
    """The payload names somebody else than its subject does."""

    code = "policy.foreign_subject"


class Verdict(NamedTuple):
    """What the engine's result means. `revision` is empty when the engine had no data of the tenant."""

    allow: bool
    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...] = ()
    revision: str = ""


class _Result(msgspec.Struct, forbid_unknown_fields=True):
    allow: bool
    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...]
    revision: str


_RESULTS = msgspec.json.Decoder(_Result)
_UNDEFINED = (b"", b"null", b'"<undefined>"')


def check_subject(request: DecisionRequest, caller: Caller) -> None:
    """Raises ForeignSubject unless it is about the caller, and MalformedCommand for properties nested too deep."""
    if request.subject.id != caller.user:
        raise ForeignSubject("a decision is about the user whom the subject names, and about nobody else")
    if request.subject.properties.get("tenant", caller.tenant) != caller.tenant:
        raise ForeignSubject("a decision is about a user of the tenant that the subject names")
    check_depth(request.resource.properties)
    check_depth(request.action.properties)


def check_recorded(recorded: Mapping[str, Any], caller: Caller) -> None:
    """The same for a recorded engine input, which names its tenant itself."""
    check_depth(dict(recorded))
    subject = recorded.get("subject")
    properties = subject.get("properties") if isinstance(subject, dict) else None
    tenant = properties.get("tenant") if isinstance(properties, dict) else None
    if not isinstance(subject, dict) or (tenant, subject.get("id")) != (caller.tenant, caller.user):
        raise ForeignSubject("the recorded input is about another user than the subject names")


def check_depth(value: object, levels: int = MAX_DEPTH) -> None:
    """Raises MalformedCommand when objects and lists are nested deeper than `levels`."""
    if isinstance(value, (dict, list)):
        if levels == 0:
            raise MalformedCommand(f"the request nests objects or lists deeper than {MAX_DEPTH}")
        for item in value.values() if isinstance(value, dict) else value:
            check_depth(item, levels - 1)


def engine_input(
    request: DecisionRequest, *, tenant: str, roles: tuple[str, ...], active: bool, at: datetime
) -> dict[str, Any]:
    """What the engine is given: the request, but everything about the subject comes from the directory.

    `{"subject": {"type", "id", "properties": {"tenant", "roles", "active"}}, "action": {"name", "properties"},
    "resource": {"type", "id", "properties"}, "context": {"time", and what the request says of run, ordinal, ...}}`.
    """
    context = request.context
    return {
        "subject": {
            "type": request.subject.type,
            "id": request.subject.id,
            "properties": {"tenant": tenant, "roles": list(roles), "active": active},
        },
        "action": {"name": request.action.name, "properties": request.action.properties},
        "resource": {
            "type": request.resource.type,
            "id": request.resource.id,
            "properties": request.resource.properties,
        },
        "context": {
            "time": instant(at),
            "run": context.run,
            "ordinal": context.ordinal,
            "args_digest": context.args_digest,
            "session": context.session,
            "agent": context.agent,
            "scopes": list(context.scopes),
        },
    }


def verdict_of(result: bytes) -> Verdict:
    """The meaning of the engine's JSON: only an exact shape with a literal `true` allows, whatever else denies."""
    if result in _UNDEFINED:
        return denial(UNDEFINED, "no policy decided this")
    try:
        decoded = _RESULTS.decode(result)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return denial(ODD_RESULT, "the policy's result is not of the shape that it should be")
    if decoded.allow is True:
        return Verdict(True, (), tuple(sorted(decoded.obligations, key=_ENCODER.encode)), decoded.revision)
    reasons = tuple(sorted(decoded.reasons, key=_ENCODER.encode))
    return Verdict(False, reasons or (Reason("policy.denied", "policy denies this"),), (), decoded.revision)


def denial(code: str, message: str) -> Verdict:
    """A denial for one reason."""
    return Verdict(False, (Reason(code, message),))


def permits_a_call(request: DecisionRequest) -> bool:
    """Whether an allowed request gets a permit: a tool call that says which one it is.

    No other action may have one, because a permit names its resource as a tool: being allowed to read a run called
    `sql` must not permit calling `sql`.
    """
    context = request.context
    return (
        request.action.name == "tool.call"
        and request.resource.type == "tool"
        and context.ordinal is not None
        and bool(context.run and context.args_digest)
    )


def recorded_reasons(context: AnswerContext) -> list[Mapping[str, str]]:
    """Reasons as an event keeps them."""
    return [{"code": reason.code, "message": reason.message} for reason in context.reasons]


def instant(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds: `2026-01-31T09:30:00.000000Z`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"  # strftime costs 10 us


_ENCODER = msgspec.json.Encoder()
