"""Progress of runs on `remit.{tenant}.{user}.live.run.{run_id}`: one message for each recorded event that says
something new.

`seq` is the event's version in the run, so messages are in order over crashes too. Nothing is stored, and a message
that cannot be sent is let go: the run's record has it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
import structlog
from eventsourcing.domain import CanMutateAggregate

from remit_agent_runtime import facts
from remit_agent_runtime.inhand import RunInHand

PublishLive = Callable[[str, str, tuple[str, ...], bytes], Awaitable[None]]
"""`publish_live(tenant, user, topic, payload)`."""


def announcing(publish_live: PublishLive) -> Callable[[RunInHand, Sequence[CanMutateAggregate[Any]]], Awaitable[None]]:
    """The `announce` of runs in hand, on the bus."""

    async def announce(hand: RunInHand, events: Sequence[CanMutateAggregate[Any]]) -> None:
        run_id = hand.run.run_id
        for event in events:
            said = said_of(event)
            if said is None:
                continue
            message = {"run_id": run_id, "seq": event.originator_version, "at": event.timestamp, **said}
            try:
                await publish_live(hand.tenant, hand.user, ("run", run_id), orjson.dumps(message))
            except Exception as fault:
                structlog.get_logger().info("progress.lost", run=run_id, error=str(fault)[:200])

    return announce


def said_of(event: Any) -> dict[str, Any] | None:
    """The `type` and what belongs to it (`remit_contracts.runs.Progress`), or None when the event is not announced."""
    match event:
        case facts.Accepted():
            return {"type": "status", "status": "accepted"}
        case facts.Started():
            return {"type": "status", "status": "running"}
        case facts.ModelCalled():
            text = text_of(event.response)
            return {
                "type": "text" if text else "model",
                "model": event.model,
                "ordinal": event.ordinal,
                "text": text or None,
            }
        case facts.ToolCallAuthorized():
            decision_id = event.decision.get("decision_id")
            return _tool(event, tool=event.tool, outcome="authorized", decision_id=decision_id)
        case facts.ToolCallDenied():
            error = {"code": event.code, "reason": event.reason, "decision_id": event.decision_id or None}
            return _tool(event, tool=event.tool, outcome="denied", decision_id=event.decision_id or None, error=error)
        case facts.ToolCallCompleted():
            outcome = "completed" if event.ok else "failed"
            return _tool(event, outcome=outcome, withheld=event.withheld or None, error=event.error)
        case facts.ToolCallUnknown():
            return _tool(event, outcome="unknown")
        case facts.Completed():
            return {"type": "end", "status": "completed", "answer": event.answer}
        case facts.Failed():
            return {"type": "end", "status": "failed", "error": event.error}
        case facts.Cancelled():
            return {"type": "end", "status": "cancelled"}
    return None


def text_of(response: dict[str, Any]) -> str:
    """The words in a journaled model response."""
    parts = response.get("parts") or []
    return "\n".join(str(part.get("content", "")) for part in parts if part.get("part_kind") == "text").strip()


def _tool(event: Any, **said: Any) -> dict[str, Any]:
    return {"type": "tool", "ordinal": event.ordinal, **said}
