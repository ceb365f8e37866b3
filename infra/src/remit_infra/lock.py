"""One `remit up` per home: a lock that dies with its holder, and how others find, watch and end that holder."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from remit_contracts.errors import Refusal, Unavailable
from remit_infra.home import Home

LOOKS: Final = 10
LOOK_SECONDS: Final = 0.02


class AlreadyRunning(Refusal):
    """Another process holds the home."""

    code = "home"

    def __init__(self, pid: int) -> None:
        super().__init__(f"already running, pid {pid}")
        self.pid = pid


@contextmanager
def holding(home: Home) -> Iterator[int]:
    """Hold the home's lock; yields its descriptor, which children must close. Raises AlreadyRunning.

    The kernel releases it when the holder is gone, however it went, so a stale lock file never needs a hand.
    """
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _take(descriptor):
            raise AlreadyRunning(_written_pid(home))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def holder(home: Home) -> int | None:
    """The process id of the running `remit up`, or None."""
    try:
        descriptor = os.open(home.lock, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that only look never see each other
    except BlockingIOError:
        return _written_pid(home)
    finally:
        os.close(descriptor)
    return None


def status(home: Home) -> dict[str, Any]:
    """`{"running", "pid", "ready", "endpoints", "parts": {name: {"pid", "alive"}}}`.

    Endpoints left behind by a holder that was killed do not count.
    """
    pid = holder(home)
    endpoints = home.endpoints() if pid else None
    pids: dict[str, int] = endpoints["pids"] if endpoints else {}
    return {
        "running": pid is not None,
        "pid": pid,
        "ready": endpoints is not None,
        "endpoints": endpoints,
        "parts": {name: {"pid": child, "alive": _is_alive(child)} for name, child in pids.items()},
    }


def down(home: Home, *, wait_seconds: float = 60.0) -> bool:
    """End the running `remit up` and wait until it is gone; False when there is none. Raises Unavailable in the end."""
    pid = holder(home)
    if pid is None:
        home.remove_endpoints()
        return False
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # The handle names this process for good; the lock, still held, shows that the number is not another's by now.
        if holder(home) == pid:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        watch = select.poll()
        watch.register(handle, select.POLLIN)
        if not watch.poll(wait_seconds * 1000):
            raise Unavailable(f"pid {pid} is still stopping after {wait_seconds:.0f} s: look at {home.logs}")
    finally:
        os.close(handle)
    return True


def _take(descriptor: int) -> bool:
    """Lock it for ourselves. Whoever asks for the holder locks it too, for an instant: one refusal proves nothing."""
    for _ in range(LOOKS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(LOOK_SECONDS)
    return False


def _written_pid(home: Home) -> int:
    text = home.lock.read_text().strip()
    return int(text) if text.isdigit() else 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
