"""Telling the supervisor that a service is ready, or why it is not.

`remit up` passes the writing end of a pipe in `REMIT_READY_FD`; without one (a container) nothing is told and health
checks ask over the bus.
"""

from __future__ import annotations

import os

READY_FD = "REMIT_READY_FD"


def announce_ready() -> None:
    """Say `ready` once."""
    _say(b"ready\n")


def announce_failure(reason: str) -> None:
    """Say `failed: reason` in one line; the reason must hold no secret."""
    _say(b"failed: " + " ".join(reason.split())[:500].encode() + b"\n")


def _say(line: bytes) -> None:
    descriptor = os.environ.pop(READY_FD, "")
    if descriptor.isdigit():
        os.write(int(descriptor), line)
        os.close(int(descriptor))
