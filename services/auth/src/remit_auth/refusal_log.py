"""Refused connections in the log, a few a second: a flood of bad tokens must not become a flood of lines."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

LINES_PER_SECOND = 5


class RefusalLog:
    """Writes the first lines of each second; how many were left out is said by the next line that is written."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._second = 0
        self._written = 0
        self._left_out = 0

    def refused(self, reason: str, **fields: str) -> None:
        """One refusal; neither the reason nor a field may hold a credential."""
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written >= LINES_PER_SECOND:
            self._left_out += 1
            return
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        structlog.get_logger().warning("callout.refused", reason=reason, left_out=left_out, **fields)
