"""What an event says, opened with its user's key, without knowing its class.

The audit service reads events of every service and imports none of them, so a state is given as the JSON that was
stored: as old events were written, not upcast. The form is that of `remit_chassis.eventstore.mapper`; a test keeps the
two alike.
"""

from __future__ import annotations

from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from remit_contracts.errors import Tampered
from remit_contracts.events import Envelope
from remit_contracts.identity import data_key_scope

_NONCE_BYTES = 12
_TYPE_MARKS = "~"


def open_state(envelope: Envelope, key: bytes) -> dict[str, Any]:
    """The event's fields as plain JSON values; raises Tampered when the key does not open them."""
    bound = b"%s|%s|%d|%s" % (
        data_key_scope(envelope.tenant, envelope.user),
        envelope.originator_id.encode(),
        envelope.originator_version,
        envelope.topic.encode(),
    )
    try:
        plain = AESGCM(key).decrypt(envelope.state[:_NONCE_BYTES], envelope.state[_NONCE_BYTES:], bound)
        state = orjson.loads(plain)
    except (InvalidTag, ValueError):
        raise Tampered(
            f"event {envelope.notification_id} of {envelope.tenant}/{envelope.service} does not open with its key"
        ) from None
    if not isinstance(state, dict):
        raise Tampered(f"event {envelope.notification_id} of {envelope.tenant}/{envelope.service} holds no fields")
    state.pop(_TYPE_MARKS, None)
    return state


def run_of(envelope: Envelope, data: dict[str, Any]) -> str | None:
    """The run that an event belongs to: the aggregate itself, or the run that its fields name."""
    if envelope.topic.startswith("runtime.Run."):
        return envelope.originator_id
    for name in ("run_id", "run"):
        if isinstance(data.get(name), str) and data[name]:
            return str(data[name])
    return None
