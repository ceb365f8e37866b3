"""Asking again while what is asked is away, as while it restarts: for a while, and more and more slowly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from remit_contracts.errors import Unavailable
from remit_contracts.fast_decisions import DecisionAnswer

FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 2.0
"""Ten seconds of patience are eight questions: policy records each that it cannot decide."""

AWAY: Final = frozenset({"policy.directory_unavailable", "policy.engine_unreachable"})
"""Denials for the moment: what policy itself needs is away. The other undecided ones would come again."""

R = TypeVar("R")


async def patiently(
    ask: Callable[[], Awaitable[R]],
    *,
    seconds: float,
    away: Callable[[R], bool] = lambda answer: False,
    waiting: Callable[[], None] = lambda: None,
) -> R:
    """The answer, once it is not `away`; after that time the last one, or the Unavailable that it was.

    `seconds` bounds when the last question is asked, so a question's own time-out should be a fraction of it.
    `waiting` is called before each pause.
    """
    give_up_at = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            answer = await ask()
        except Unavailable:
            if time.monotonic() + pause > give_up_at:
                raise
        else:
            if not away(answer) or time.monotonic() + pause > give_up_at:
                return answer
        waiting()
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def nobody_decided(answer: DecisionAnswer) -> bool:
    """Whether policy denied it only because what it needs is away."""
    return answer.decision is not True and answer.code in AWAY
