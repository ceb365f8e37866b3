"""A stored event as it is hashed, chained, relayed and audited: the one shape that every copy of the record shares.

A service's events in one tenant are numbered from 1 without a gap, and each names the hash of the one before it
(GENESIS before the first). The hash of an event is SHA-256 over ENCODING and then ten fields in this order, each
preceded by its length in bytes as a 4-byte big-endian integer, so that no two envelopes share an encoding:

    service            ASCII, as in the subject
    tenant             ASCII, as in the subject
    user               ASCII, as in the subject
    notification_id    decimal ASCII, no sign and no leading zero
    originator_id      32 lower-case hex digits: the aggregate, as in the subject
    originator_version decimal ASCII
    topic              UTF-8: what happened, such as `runtime.Run.Accepted`
    recorded_at        RFC 3339 in UTC with microseconds, 27 ASCII characters: `2026-01-31T09:30:00.000000Z`
    state              the event's ciphertext, as it is
    prev_hash          32 bytes, as they are

On the bus the state is the message body; service, tenant, user and originator come from the subject, which the server
enforces; the rest travels in headers named `Remit-*`. Everything but the state is readable, so it names nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Final

import msgspec

from remit_contracts import subjects
from remit_contracts.errors import Tampered
from remit_contracts.identity import is_label

ENCODING: Final = b"remit-event-v1\n"
GENESIS: Final = bytes(32)
"""What the first event of a chain names as its predecessor."""

NOTIFICATION_ID: Final = "Remit-Notification-Id"
VERSION: Final = "Remit-Version"
TOPIC: Final = "Remit-Topic"
RECORDED_AT: Final = "Remit-Recorded-At"
PREVIOUS_HASH: Final = "Remit-Previous-Hash"
HASH: Final = "Remit-Hash"

_NUMBER = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_HEX_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ORIGINATOR = re.compile(r"[0-9a-f]{32}", re.ASCII)


class Envelope(msgspec.Struct, frozen=True):
    """One stored event. `hash` is what the record claims; `digest()` is what the other fields give."""

    service: str
    tenant: str
    user: str
    notification_id: int
    originator_id: str
    originator_version: int
    topic: str
    recorded_at: str
    state: bytes
    prev_hash: bytes
    hash: bytes = b""

    def encoded(self) -> bytes:
        """The canonical encoding in this module's docstring; `hash` itself is left out."""
        return b"".join(
            (
                ENCODING,
                _field(self.service),
                _field(self.tenant),
                _field(self.user),
                _field(str(self.notification_id)),
                _field(self.originator_id),
                _field(str(self.originator_version)),
                _field(self.topic),
                _field(self.recorded_at),
                len(self.state).to_bytes(4, "big"),
                self.state,
                len(self.prev_hash).to_bytes(4, "big"),
                self.prev_hash,
            )
        )

    def digest(self) -> bytes:
        """SHA-256 (32 bytes) over `encoded()`."""
        return sha256(self.encoded()).digest()

    def sealed(self) -> Envelope:
        """The same envelope with `hash` set to its digest."""
        return msgspec.structs.replace(self, hash=self.digest())

    @property
    def intact(self) -> bool:
        """Whether the claimed hash is the digest of the rest."""
        try:
            return self.hash == self.digest()
        except (AttributeError, TypeError):  # a damaged row can give a field of another type
            return False

    @property
    def subject(self) -> str:
        """Where it is published: `remit.{tenant}.{user}.evt.{service}.{originator_id}`."""
        return subjects.event(self.tenant, self.user, self.service, self.originator_id)

    def to_headers(self) -> dict[str, str]:
        """What the subject and the body do not say, as message headers."""
        return {
            NOTIFICATION_ID: str(self.notification_id),
            VERSION: str(self.originator_version),
            TOPIC: self.topic,
            RECORDED_AT: self.recorded_at,
            PREVIOUS_HASH: self.prev_hash.hex(),
            HASH: self.hash.hex(),
        }


@lru_cache(maxsize=8192)
def _field(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(4, "big") + encoded


def from_message(headers: Mapping[str, str] | None, data: bytes, subject: str) -> Envelope:
    """The envelope in a message of a tenant's event stream; other headers are ignored.

    Raises Tampered when a header is missing or malformed, when the subject is no event's, or when the hash does not
    match the content, so an envelope that comes back is intact. It says nothing about its place in the chain.
    """
    tokens = subject.split(".")
    if len(tokens) != 6 or tokens[0] != subjects.ROOT or tokens[3] != "evt" or not all(map(is_label, tokens)):
        raise Tampered(f"{subject!r:.120} is no event subject")
    said = headers or {}
    envelope = Envelope(
        service=tokens[4],
        tenant=tokens[1],
        user=tokens[2],
        notification_id=int(_header(said, NOTIFICATION_ID, _NUMBER, subject)),
        originator_id=tokens[5],
        originator_version=int(_header(said, VERSION, _NUMBER, subject)),
        topic=said.get(TOPIC, ""),
        recorded_at=said.get(RECORDED_AT, ""),
        state=data,
        prev_hash=bytes.fromhex(_header(said, PREVIOUS_HASH, _HEX_HASH, subject)),
        hash=bytes.fromhex(_header(said, HASH, _HEX_HASH, subject)),
    )
    if not _ORIGINATOR.fullmatch(envelope.originator_id) or not envelope.intact:
        raise Tampered(f"the event {envelope.notification_id} on {subject} does not match its hash")
    return envelope


def _header(headers: Mapping[str, str], name: str, form: re.Pattern[str], subject: str) -> str:
    value = headers.get(name, "")
    if not form.fullmatch(value):
        raise Tampered(f"a message on {subject} has no valid {name} header")
    return value
