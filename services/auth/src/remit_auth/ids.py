"""Identifiers: opaque ones from randomness for users and sessions, and those of aggregates from what they name."""

from __future__ import annotations

from base64 import b32encode
from uuid import UUID, uuid5

from remit_contracts.directory import SESSION_ID_PREFIX, USER_ID_PREFIX

NAMESPACE = UUID("5f1c9a52-7a0e-4a0b-9d3b-2c54a6a0b7de")
ENTROPY_BYTES = 10


def aggregate_id(kind: str, *labels: str) -> UUID:
    """The one id of what these labels name: a second of the same conflicts. Injective, because labels hold no slash."""
    return uuid5(NAMESPACE, "/".join((kind, *labels)))


def user_id_from(entropy: bytes) -> str:
    """An opaque user id: `u-` and 16 characters of 80 random bits."""
    return USER_ID_PREFIX + _opaque(entropy)


def session_id_from(entropy: bytes) -> str:
    """An opaque session id: `s-` and 16 characters of 80 random bits."""
    return SESSION_ID_PREFIX + _opaque(entropy)


def _opaque(entropy: bytes) -> str:
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"an id is made of {ENTROPY_BYTES} random bytes, not of {len(entropy)}")
    return b32encode(entropy).decode().lower()
