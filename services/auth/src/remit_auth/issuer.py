"""The built-in issuer: signs session tokens on one machine, so that Remit runs without an identity provider.

    BuiltInIssuerRefused    ValueError: an OIDC issuer is configured, and two issuers would mean two truths

Tokens are JWTs (Ed25519, RFC 9864) of the type `at+jwt` (RFC 9068), so that no identity token passes for one.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import datetime

from joserfc import jwt
from joserfc.jwk import OKPKey
from nacl.signing import SigningKey

from remit_auth.domain import BUILT_IN_ISSUER

AUDIENCE = "remit"
ALGORITHM = "Ed25519"
TOKEN_TYPE = "at+jwt"  # noqa: S105 -- a media type


class BuiltInIssuerRefused(ValueError):
    """The built-in issuer is for development only."""


class DevelopmentIssuer:
    """Signs with the Ed25519 seed of this installation (32 bytes)."""

    def __init__(self, seed: bytes, *, oidc_issuer: str | None) -> None:
        """Raises BuiltInIssuerRefused when an OIDC issuer is configured."""
        if oidc_issuer:
            raise BuiltInIssuerRefused(
                f"the built-in issuer is for development and does not work beside the OIDC issuer {oidc_issuer}: "
                "unset REMIT_AUTH_OIDC_ISSUER to develop with it"
            )
        public = bytes(SigningKey(seed).verify_key)
        self._key = _okp_key(public, seed)
        self.public_key = _okp_key(public)

    def issue(
        self, *, tenant: str, user: str, session: str, token_id: str, issued_at: datetime, expires_at: datetime
    ) -> str:
        """A token that says who may connect as whom, until `expires_at` (whole seconds, rounded down)."""
        issued = int(issued_at.timestamp())
        claims = {
            "iss": BUILT_IN_ISSUER,
            "aud": AUDIENCE,
            "tenant": tenant,
            "sub": user,
            "sid": session,
            "jti": token_id,
            "iat": issued,
            "nbf": issued,
            "exp": int(expires_at.timestamp()),
        }
        return jwt.encode({"alg": ALGORITHM, "typ": TOKEN_TYPE}, claims, self._key, algorithms=[ALGORITHM])


def _okp_key(public: bytes, seed: bytes | None = None) -> OKPKey:
    key: dict[str, str | list[str]] = {"kty": "OKP", "crv": "Ed25519", "x": _base64(public)}
    return OKPKey.import_key(key | {"d": _base64(seed)} if seed else key)


def _base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
