"""Asking policy outside the hot path: the answer as the asker records it inside its own event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from remit_contracts.fast_decisions import DecisionAnswer, DecisionContext, ask
from remit_contracts.identity import Caller

if TYPE_CHECKING:
    from remit_chassis.service import Service

DECIDE_SECONDS = 5.0


async def decide_with(
    service: Service, caller: Caller, action: str, resource_type: str, resource_id: str
) -> dict[str, Any]:
    """May the caller do `action` on that resource of their tenant? The recorded form of a yes, as `recorded` gives it.

    Raises Denied with the decision's id (policy has recorded it), or Unavailable: then it must not happen either.
    """
    request = ask(
        user=caller.user,
        action=action,
        resource_type=resource_type,
        resource_id=resource_id,
        tenant=caller.tenant,
        context=DecisionContext(session=caller.session),
    )
    payload = await service.ask(
        caller.tenant, caller.user, "policy", "decide", request.to_bytes(), timeout_seconds=DECIDE_SECONDS
    )
    return recorded(DecisionAnswer.from_bytes(payload).required())


def recorded(answer: DecisionAnswer) -> dict[str, Any]:
    """All that is needed to decide again: the exact input, the bundle, the data's revision, and what came out."""
    context = answer.context
    return {
        "decision_id": context.decision_id,
        "decision": answer.decision,
        "input": orjson.loads(bytes(context.input)),
        "reasons": [{"code": reason.code, "message": reason.message} for reason in context.reasons],
        "obligations": [{"type": duty.type, "properties": duty.properties} for duty in context.obligations],
        "bundle_digest": context.bundle_digest,
        "data_revision": context.data_revision,
        "evaluated_at": context.evaluated_at,
    }
