"""Believing a session token, or not: one algorithm, one type, one issuer, one audience, and times that hold now.

    NotSignedIn
    +-- InvalidToken    auth.not_signed_in    `reason` says what is wrong, for the log; callers are told less

The header may hold `alg` and `typ` and nothing else, so `crit`, `jku`, `jwk`, `x5u`, `x5c`, `kid` and whatever comes
next are refused unread, and no token ever chooses the key that it is checked with.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from remit_auth.domain import BUILT_IN_ISSUER
from remit_auth.issuer import ALGORITHM, AUDIENCE, TOKEN_TYPE
from remit_contracts.directory import MAX_TOKEN_SECONDS
from remit_contracts.errors import NotSignedIn
from remit_contracts.identity import Caller, is_label

MAX_TOKEN_BYTES = 2048
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_HEADER = {"alg": ALGORITHM, "typ": TOKEN_TYPE}


class InvalidToken(NotSignedIn):
    """A token that proves nothing. `reason` quotes nothing of it."""


class Credential(NamedTuple):
    """What a valid token says. `expires_at` is a POSIX time in whole seconds."""

    caller: Caller
    expires_at: int


class Verifier:
    """Checks tokens of the built-in issuer with its public key."""

    def __init__(self, public_key: OKPKey) -> None:
        self._key = public_key

    def verify(self, token: str, *, at: datetime) -> Credential:
        """Raises InvalidToken for every text that is not a token of ours, valid at that moment."""
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidToken(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
        if not _COMPACT.fullmatch(token):
            raise InvalidToken("the token is no compact JWT")
        try:
            if jws.extract_compact(token.encode()).headers() != _HEADER:
                raise InvalidToken(f"the token's header is not exactly alg {ALGORITHM}, typ {TOKEN_TYPE}")
            claims = jwt.decode(token, self._key, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError, TypeError, RecursionError) as fault:
            raise InvalidToken(f"the token does not verify ({type(fault).__name__})") from None
        return _believed(claims, int(at.timestamp()))


def _believed(claims: dict[str, Any], now: int) -> Credential:
    if claims.get("iss") != BUILT_IN_ISSUER or claims.get("aud") != AUDIENCE:
        raise InvalidToken("the token is of another issuer or for another audience")
    issued_at, not_before, expires_at = (_instant(claims, name) for name in ("iat", "nbf", "exp"))
    if expires_at <= now:
        raise InvalidToken("the token has expired")
    if issued_at > now or not_before > now:
        raise InvalidToken("the token is not valid yet")
    if expires_at - issued_at > MAX_TOKEN_SECONDS:
        raise InvalidToken("the token is valid for longer than any that we issue")
    tenant, user, session, token_id = (claims.get(name) for name in ("tenant", "sub", "sid", "jti"))
    if not all(is_label(value) for value in (tenant, user, session, token_id)):
        raise InvalidToken("the token names no tenant, subject, session or id")
    return Credential(Caller(str(tenant), str(user), str(session)), expires_at)


def _instant(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int or value < 0:  # a bool is an int to isinstance
        raise InvalidToken(f"the token has no whole number of seconds as {name}")
    return value
