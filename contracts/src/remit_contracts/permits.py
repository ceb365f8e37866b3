"""Permits: what policy signs when it allows one tool call, and what everybody who acts on it reads.

A token is `base64url(claims) "." base64url(signature)`, without padding; the claims are compact JSON, the signature is
Ed25519 over exactly those bytes (`remit_chassis.permits` signs and verifies). A permit holds for seconds and for one
use: whoever acts on it compares every claim with what is about to happen and keeps its `jti` until it has expired.

    PermitRefused
    +-- permit.malformed        not a token, or claims of another shape or version
    +-- permit.bad_signature    not signed by the policy service
    +-- permit.expired          past `exp`
    +-- permit.not_yet_valid    issued in the future: two clocks disagree
    +-- permit.mismatch         valid, and for something else
    +-- permit.used             its `jti` was seen before
"""

from __future__ import annotations

import base64
import binascii
import math
from hashlib import sha256
from typing import Any, Final

import msgspec
import orjson

from remit_contracts.errors import MalformedCommand, Refusal
from remit_contracts.fast_decisions import Obligation

VERSION: Final = 1
TTL_SECONDS: Final = 15.0
MAX_TOKEN_BYTES: Final = 32 * 1024

MALFORMED: Final = "permit.malformed"
BAD_SIGNATURE: Final = "permit.bad_signature"
EXPIRED: Final = "permit.expired"
NOT_YET_VALID: Final = "permit.not_yet_valid"
MISMATCH: Final = "permit.mismatch"
USED: Final = "permit.used"


class PermitRefused(Refusal):
    """A permit that does not permit this; `refusal_code` is one of the codes in the module's docstring."""

    code = MALFORMED


class PermitClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What a permit states.

    `jti` is the decision's id; `iat` and `exp` are seconds since the epoch; digests are SHA-256 in hex.
    """

    v: int = VERSION
    jti: str
    tenant: str
    user: str
    session: str
    run: str
    ordinal: int
    tool: str
    args_digest: str
    scopes: tuple[str, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    bundle_digest: str
    data_revision: str
    input_digest: str
    iat: float
    exp: float

    @property
    def effect_key(self) -> str:
        """`{run}:{ordinal}`: the key under which the effect happens at most once."""
        return f"{self.run}:{self.ordinal}"

    def require(
        self,
        *,
        tenant: str | None = None,
        user: str | None = None,
        session: str | None = None,
        run: str | None = None,
        ordinal: int | None = None,
        tool: str | None = None,
        args_digest: str | None = None,
    ) -> PermitClaims:
        """The claims, when each value given is the one claimed; raises PermitRefused (permit.mismatch) naming the first
        that differs."""
        asked: dict[str, object] = {
            "tenant": tenant,
            "user": user,
            "session": session,
            "run": run,
            "ordinal": ordinal,
            "tool": tool,
            "args_digest": args_digest,
        }
        for name, value in asked.items():
            if value is not None and getattr(self, name) != value:
                raise PermitRefused(f"the permit was issued for another {name}", code=MISMATCH)
        return self


def encode_claims(claims: PermitClaims) -> bytes:
    """The bytes that are signed."""
    return _ENCODER.encode(claims)


def join(claims: bytes, signature: bytes) -> str:
    """The token of signed claims."""
    return f"{_b64(claims)}.{_b64(signature)}"


def split(token: str) -> tuple[bytes, bytes]:
    """The bytes that were signed, and the signature, unverified; raises PermitRefused (permit.malformed)."""
    head, dot, tail = token.partition(".") if isinstance(token, str) else ("", "", "")
    if not dot or len(token) > MAX_TOKEN_BYTES:
        raise PermitRefused("that is no permit token")
    return _unb64(head), _unb64(tail)


def decode_claims(claims: bytes) -> PermitClaims:
    """The claims in bytes whose signature holds; raises PermitRefused (permit.malformed)."""
    try:
        decoded = _DECODER.decode(claims)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise PermitRefused("the permit's claims are not the shape that they should be") from None
    if decoded.v != VERSION or not (math.isfinite(decoded.iat) and math.isfinite(decoded.exp)):
        raise PermitRefused(f"the permit has version {decoded.v} and {VERSION} is understood")
    return decoded


def canonical_json(value: dict[str, Any]) -> bytes:
    """The one JSON form of an object: keys sorted, no blanks; raises MalformedCommand for what JSON cannot say."""
    try:
        encoded = orjson.dumps(value, option=_CANONICAL)
    except (TypeError, ValueError) as fault:
        raise MalformedCommand(f"that is not plain JSON: {fault}") from None
    if b"null" in encoded and not _finite(value):  # orjson writes NaN as null, which would give two values one digest
        raise MalformedCommand("a number in it is not finite, which JSON cannot say")
    return encoded


def args_digest(args: dict[str, Any]) -> str:
    """SHA-256 in hex over the canonical JSON of a tool call's arguments."""
    return sha256(canonical_json(args)).hexdigest()


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return not isinstance(value, (list, tuple)) or all(map(_finite, value))


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise PermitRefused("the permit is not base64url") from None
    if _b64(raw) != text:  # one permit, one text: unused bits must be zero
        raise PermitRefused("the permit is not canonical base64url")
    return raw


_CANONICAL = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(PermitClaims)
