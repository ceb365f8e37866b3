"""Telling the supervisor that a service is ready, what it waits for, or why it ends.

`remit up` passes the writing end of a pipe in `REMIT_READY_FD`; without one (a container) nothing is told and health
checks ask over the bus. Each word is one line; none holds a secret:

    waiting: CODE REASON         not ready yet, and why; CODE is the refusal's, or `-`
    contradicted: TENANT REASON  ready soon, but not for this tenant
    ready                        nothing more follows
    failed: REASON               nothing more follows
"""

from __future__ import annotations

import os

READY_FD = "REMIT_READY_FD"
_MOST_CHARACTERS = 500


def announce_ready() -> None:
    """Say `ready` once."""
    _say("ready")
    _hang_up()


def announce_failure(reason: str) -> None:
    """Say `failed: reason`."""
    _say(f"failed: {reason}")
    _hang_up()


def announce_waiting(reason: str, *, code: str = "") -> None:
    """Say `waiting: code reason`."""
    _say(f"waiting: {code or '-'} {reason}")


def announce_contradicted(tenant: str, reason: str) -> None:
    """Say `contradicted: tenant reason`."""
    _say(f"contradicted: {tenant} {reason}")


def _say(words: str) -> None:
    descriptor = os.environ.get(READY_FD, "")
    if descriptor.isdigit():
        os.write(int(descriptor), " ".join(words.split())[:_MOST_CHARACTERS].encode() + b"\n")


def _hang_up() -> None:
    descriptor = os.environ.pop(READY_FD, "")
    if descriptor.isdigit():
        os.close(int(descriptor))
