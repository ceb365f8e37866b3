"""Asking policy about connections, and keeping its answer whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from remit_contracts.errors import Denied
from remit_contracts.fast_decisions import DecisionAnswer, DecisionContext, ask
from remit_contracts.identity import Caller

DECIDE_SECONDS = 2.0

Decide = Callable[[Caller, str, str], Awaitable[dict[str, Any]]]
"""`decide(caller, action, connection's name)`: the decision as it is to be recorded; raises Denied or Unavailable."""


class Ask(Protocol):
    """`Service.ask`."""

    def __call__(
        self, tenant: str, user: str, service: str, verb: str, payload: bytes, *, timeout_seconds: float
    ) -> Awaitable[bytes]:
        """The answer's bytes; a refusal is raised."""


def deciding(ask_service: Ask) -> Decide:
    """Decides by the policy service. Silence is Unavailable, so it allows nothing."""

    async def decide(caller: Caller, action: str, name: str) -> dict[str, Any]:
        request = ask(
            user=caller.user,
            action=action,
            resource_type="connection",
            resource_id=name,
            tenant=caller.tenant,
            context=DecisionContext(session=caller.session),
        )
        payload = await ask_service(
            caller.tenant, caller.user, "policy", "decide", request.to_bytes(), timeout_seconds=DECIDE_SECONDS
        )
        answer = DecisionAnswer.from_bytes(payload).required()
        if answer.context.obligations:
            kinds = ", ".join(sorted({obligation.type for obligation in answer.context.obligations}))
            raise Denied(
                f"policy asks for what the broker cannot do on a connection: {kinds}",
                code="policy.unknown_obligation",
                decision_id=answer.context.decision_id,
            )
        return _as_recorded(answer)

    return decide


def _as_recorded(answer: DecisionAnswer) -> dict[str, Any]:
    """Everything that it takes to decide it again; `input` is the text that the engine was given."""
    context = answer.context
    return {
        "decision_id": context.decision_id,
        "decision": answer.decision,
        "reasons": [{"code": reason.code, "message": reason.message} for reason in context.reasons],
        "obligations": [],
        "bundle_digest": context.bundle_digest,
        "data_revision": context.data_revision,
        "evaluated_at": context.evaluated_at,
        "input": bytes(context.input).decode(),
    }
