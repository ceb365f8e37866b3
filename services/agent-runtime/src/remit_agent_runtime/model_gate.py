"""The model gate: every model call of every agent, journaled before its answer is used.

A call is known by its ordinal and by the hash of what was asked. After a crash the journal answers while it can; a
call that asks something else than the recorded one is a divergence, and the run ends there instead of going on as
another run.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from remit_agent_runtime.inhand import RunInHand

VOLATILE = frozenset({"timestamp", "run_id", "conversation_id", "instructions_id"})
"""Fields that frameworks stamp on messages, and that differ between a run and its replay."""


class Diverged(Exception):
    """A replay asked for something else than what is recorded."""

    code = "run.diverged"


class ModelAnswer(NamedTuple):
    """What a model said, as JSON, and what it took."""

    response: dict[str, Any]
    input_tokens: int
    output_tokens: int


async def call_model(
    hand: RunInHand, *, model: str, request: Any, ask: Callable[[], Awaitable[ModelAnswer]]
) -> dict[str, Any]:
    """The response to `request` (JSON): from the journal, or from `ask`, which is then recorded before this returns.

    Raises Diverged, BudgetSpent, what `ask` raises, and what a save raises.
    """
    request_hash = hash_of(request)
    made = hand.model_calls_made
    if made < len(hand.run.model_calls):
        recorded = hand.run.model_calls[made]
        if recorded.request_hash != request_hash:
            raise Diverged(
                f"model call {recorded.ordinal} asks something else than what is recorded (hash {request_hash[:12]}, "
                f"recorded {recorded.request_hash[:12]}): the agent is not deterministic, start a new run"
            )
        hand.model_calls_made += 1
        return recorded.response
    ordinal = hand.run.reserve_model_call()
    began = time.perf_counter()
    answer = await ask()
    hand.run.record_model_call(
        ordinal=ordinal,
        model=model,
        request_hash=request_hash,
        response=answer.response,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        wall_seconds=round(time.perf_counter() - began, 6),
        at=hand.clock(),
    )
    await hand.save()
    hand.model_calls_made += 1
    return answer.response


def hash_of(request: Any) -> str:
    """SHA-256 in hex over the canonical JSON of a request, without its volatile fields."""
    return sha256(orjson.dumps(_stable(request), option=orjson.OPT_SORT_KEYS)).hexdigest()


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, (list, tuple)):
        return [_stable(item) for item in value]
    return value
