"""Asking policy outside the hot path: the answer as the asker records it inside its own event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remit_chassis.sessions import require_session
from remit_contracts.fast_decisions import DecisionAnswer, DecisionContext, ask
from remit_contracts.identity import Caller

if TYPE_CHECKING:
    from remit_chassis.service import Service

DECIDE_SECONDS = 5.0


async def decide_with(
    service: Service, caller: Caller, action: str, resource_type: str, resource_id: str
) -> dict[str, Any]:
    """May the caller do `action` on that resource of their tenant? A yes, in the form in which it is recorded.

    The caller's session is part of that record, so it must be an open one of theirs. Raises
    NotSignedIn("auth.session_ended") when it is not, Denied with the decision's id (policy has recorded it), or
    Unavailable: then it must not happen either.
    """
    await require_session(service.ask, caller)
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
    return DecisionAnswer.from_bytes(payload).required().recorded()
