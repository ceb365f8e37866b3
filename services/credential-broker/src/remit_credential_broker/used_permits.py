"""Permit ids that are used up: in memory while a permit could still be in force, and for ever by what is stored.

A used id is forgotten KEPT_SECONDS after its permit expired, and `floor` remembers the latest expiry among those
forgotten: a permit that does not outlast it is refused unseen, so no clock that is set back revives one.
"""

from __future__ import annotations

from typing import Final

KEPT_SECONDS: Final = 60.0


class UsedPermits:
    """Ids in the order of their use; instants are seconds since the epoch."""

    def __init__(self) -> None:
        self.floor = 0.0
        self._expiry: dict[str, float] = {}

    def __contains__(self, permit: str) -> bool:
        return permit in self._expiry

    def __len__(self) -> int:
        return len(self._expiry)

    def take(self, permit: str, *, expires: float, now: float) -> bool:
        """Use the permit up; False when it was before, or when it is too old for anybody to know."""
        if permit in self._expiry or expires <= self.floor:
            return False
        self._expiry[permit] = expires
        self._forget(now - KEPT_SECONDS)
        return True

    def _forget(self, before: float) -> None:
        # All permits live equally long, so the order of use is that of expiry up to seconds, which KEPT_SECONDS covers.
        while self._expiry:
            oldest = next(iter(self._expiry))
            if self._expiry[oldest] > before:
                return
            self.floor = max(self.floor, self._expiry.pop(oldest))
