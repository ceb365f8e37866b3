"""Signing and verifying permits (Ed25519). Policy signs; broker, tool host and audit verify with its public key.

See `remit_contracts.permits` for the token, the claims and the codes of refusal.
"""

from __future__ import annotations

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from remit_contracts.permits import (
    BAD_SIGNATURE,
    EXPIRED,
    NOT_YET_VALID,
    PermitClaims,
    PermitRefused,
    decode_claims,
    encode_claims,
    join,
    split,
)

SIGNATURE_BYTES = 64
CLOCK_SKEW_SECONDS = 1.0
"""How far ahead the signer's clock may be; there is no leeway at the other end."""


class PermitSigner:
    """Holds policy's private key; `seed` is 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)

    @property
    def public_key(self) -> bytes:
        """32 bytes, for PermitVerifier."""
        return bytes(self._key.verify_key)

    def sign(self, claims: PermitClaims) -> str:
        """The token."""
        encoded = encode_claims(claims)
        return join(encoded, self._key.sign(encoded).signature)


class PermitVerifier:
    """Holds policy's public key, 32 bytes."""

    def __init__(self, public_key: bytes) -> None:
        self._key = VerifyKey(public_key)

    def verify(self, token: str, now: float | None) -> PermitClaims:
        """The claims of a token that is signed and in force at `now` (seconds since the epoch).

        With None the times are not looked at: an auditor verifies permits that expired long ago. Raises PermitRefused.
        That the claims fit the effect, and that the `jti` is unused, is the caller's to check.
        """
        encoded, signature = split(token)
        if len(signature) != SIGNATURE_BYTES:
            raise PermitRefused("the permit's signature has the wrong length")
        try:
            self._key.verify(encoded, signature)
        except BadSignatureError:
            raise PermitRefused("the permit was not signed by the policy service", code=BAD_SIGNATURE) from None
        claims = decode_claims(encoded)
        if now is not None:
            if not now < claims.exp:
                raise PermitRefused("the permit has expired: ask for a new decision", code=EXPIRED)
            if claims.iat > now + CLOCK_SKEW_SECONDS:
                raise PermitRefused("the permit is from the future: compare the two hosts' clocks", code=NOT_YET_VALID)
        return claims
