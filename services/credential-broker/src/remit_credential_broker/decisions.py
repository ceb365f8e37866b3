"""Asking policy about connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from remit_chassis.deciding import decide_with
from remit_contracts.errors import Denied
from remit_contracts.identity import Caller

if TYPE_CHECKING:
    from remit_chassis.service import Service

Decide = Callable[[Caller, str, str], Awaitable[dict[str, Any]]]
"""`decide(caller, action, connection's name)`: the decision as it is to be recorded; raises Denied or Unavailable."""


def deciding(service: Service) -> Decide:
    """Decides by the policy service. Silence is Unavailable, so it allows nothing."""

    async def decide(caller: Caller, action: str, name: str) -> dict[str, Any]:
        return without_obligations(await decide_with(service, caller, action, "connection", name))

    return decide


def without_obligations(decision: dict[str, Any]) -> dict[str, Any]:
    """The decision itself; raises Denied when it asks for anything, since nothing here could honour it."""
    if decision["obligations"]:
        kinds = ", ".join(sorted({obligation["type"] for obligation in decision["obligations"]}))
        raise Denied(
            f"policy asks for what the broker cannot do on a connection: {kinds}",
            code="policy.unknown_obligation",
            decision_id=decision["decision_id"],
        )
    return decision
