"""The shapes of `leases` as msgspec structs, for the hot path, and what is sealed inside a lease.

Example: `LeaseRequest(permit=..., tool="weather-desk", connection="weather-desk", run="0af...").to_bytes()`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from remit_contracts.errors import MalformedCommand, Tampered
from remit_contracts.leases import MAX_NAME
from remit_contracts.permits import MAX_TOKEN_BYTES

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Instant = Annotated[datetime, Meta(tz=True)]


class LeaseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See `leases.LeaseRequest`."""

    permit: Annotated[str, Meta(min_length=1, max_length=MAX_TOKEN_BYTES)]
    tool: Name
    connection: Name
    run: Name

    @classmethod
    def from_bytes(cls, payload: bytes) -> LeaseRequest:
        """Decode; raises MalformedCommand."""
        try:
            return _REQUESTS.decode(payload)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as fault:
            raise MalformedCommand(f"not a LeaseRequest (permit, tool, connection, run): {fault}") from None

    def to_bytes(self) -> bytes:
        """Compact JSON."""
        return _ENCODER.encode(self)


class LeaseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """See `leases.LeaseAnswer`."""

    lease_id: str
    sealed: str
    expires_at: Instant

    @classmethod
    def from_bytes(cls, payload: bytes) -> LeaseAnswer:
        """Decode an answer that is no refusal; raises Tampered for anything else."""
        try:
            return _ANSWERS.decode(payload)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as fault:
            raise Tampered(f"not a lease (lease_id, sealed, expires_at): {fault}") from None

    def to_bytes(self) -> bytes:
        """Compact JSON."""
        return _ENCODER.encode(self)


class LeaseContent(msgspec.Struct, frozen=True, kw_only=True):
    """What the tool host finds in a lease: the secret, and all that it is lent for.

    `hosts` are the `HOST:PORT` that it may be sent to; `jti` is the permit's; `expires_at` is in seconds since the
    epoch. Whoever opens it compares every field with the call at hand, and uses it once.
    """

    lease: str
    secret: str
    tenant: str
    user: str
    session: str
    run: str
    ordinal: int
    tool: str
    connection: str
    hosts: tuple[str, ...]
    scopes: tuple[str, ...]
    jti: str
    expires_at: float

    def __repr__(self) -> str:
        return f"LeaseContent(lease={self.lease!r}, tool={self.tool!r}, connection={self.connection!r})"

    @classmethod
    def from_bytes(cls, opened: bytes) -> LeaseContent:
        """Decode what the Box held; raises Tampered, never showing any of it."""
        try:
            return _SECRETS.decode(opened)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise Tampered("what the lease holds is not what the credential broker puts into one") from None

    def to_bytes(self) -> bytes:
        """Compact JSON, to be sealed and never to be sent otherwise."""
        return _ENCODER.encode(self)


_ENCODER = msgspec.json.Encoder()
_REQUESTS = msgspec.json.Decoder(LeaseRequest)
_ANSWERS = msgspec.json.Decoder(LeaseAnswer)
_SECRETS = msgspec.json.Decoder(LeaseContent)
