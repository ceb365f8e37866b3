"""Remit's client library: agents that act within their user's remit.

async with remit.connect("nats://127.0.0.1:4222", token=token) as client:
    run = await client.run("analyst", "Which airline was late most often?")
    print(run.answer)
"""

from remit.client import Client, PermissionViolation, connect
from remit_contracts.errors import (
    Absent,
    Conflict,
    Denied,
    MalformedCommand,
    NotSignedIn,
    Overloaded,
    Refusal,
    RemitError,
    Tampered,
    Unavailable,
)

__all__ = [
    "Absent",
    "Client",
    "Conflict",
    "Denied",
    "MalformedCommand",
    "NotSignedIn",
    "Overloaded",
    "PermissionViolation",
    "Refusal",
    "RemitError",
    "Tampered",
    "Unavailable",
    "connect",
]
