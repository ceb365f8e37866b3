"""Events that do not come: asked for again soon, and an alarm only when they stay away.

A relay that lags, or a bus that was restarted, brings everything a moment later, and that is no alarm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

LOOKS: Final = 4
"""How often at least they must be found missing before that is an alarm. No look counts for more than this part of the
time: while the bus is away nobody looks, and nothing is overdue because of it when it is back."""

Range = tuple[str, int, int]
"""(service, first, last): numbers of a service's events, both included."""


class Missing:
    """Judges the ranges that are found missing, look by look; a range is known by its service and first number.

    `ask` is told of those that were missing at the last look already, and for `ask_after` seconds; `overdue` once of
    each that has been missing for `seconds`.
    """

    def __init__(
        self,
        *,
        seconds: float,
        ask_after: float,
        ask: Callable[[str, int, int], None],
        overdue: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._seconds = seconds
        self._ask_after = ask_after
        self._ask = ask
        self._overdue = overdue
        self._missing_for: dict[tuple[str, int], float] = {}
        self._looked_at = 0.0

    async def look(self, ranges: Iterable[Range], *, now: float) -> None:
        """Take note of what is missing `now` (monotonic, in seconds); what is missing no more is forgotten."""
        step = min(now - self._looked_at, self._seconds / LOOKS)
        self._looked_at = now
        before, self._missing_for = self._missing_for, {}
        for service, first, last in ranges:
            known = before.get((service, first))
            self._missing_for[service, first] = 0.0 if known is None else known + step
            if known is None:
                continue
            if known + step >= self._ask_after:
                self._ask(service, first, last)
            if known < self._seconds <= known + step:
                await self._overdue(service, first)
