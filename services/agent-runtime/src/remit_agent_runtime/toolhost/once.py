"""Ids that were used and must not be used again, kept until what they belong to has expired."""

from __future__ import annotations

import heapq


class UsedOnce:
    """A set of ids with expiries, in seconds since the epoch."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._expiries: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._used)

    def take(self, name: str, *, expires: float, now: float) -> bool:
        """Whether `name` was free; it is taken from now on. What has expired by `now` is forgotten."""
        while self._expiries and self._expiries[0][0] < now:
            self._used.discard(heapq.heappop(self._expiries)[1])
        if name in self._used:
            return False
        self._used.add(name)
        heapq.heappush(self._expiries, (expires, name))
        return True


class ForwardClock:
    """Wall time that never goes back: an expired and forgotten id must not come into force again."""

    def __init__(self) -> None:
        self._latest = 0.0

    def __call__(self, reading: float) -> float:
        """The latest reading so far."""
        self._latest = max(self._latest, reading)
        return self._latest
