"""Signals that wake a poll: without a thread, a loop, or a sleep that a signal would have to cut short."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

HANDLED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


@contextmanager
def waking_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[tuple[int, int]]:
    """Call `handler` for each signal and write a byte to a pipe; yields its ends, the reading one first, non-blocking.

    What was in place before is put back at the end.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    previous = {number: signal.signal(number, handler) for number in HANDLED}
    waking = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading, writing
    finally:
        signal.set_wakeup_fd(waking)
        for number, before in previous.items():
            signal.signal(number, before)
        os.close(reading)
        os.close(writing)
