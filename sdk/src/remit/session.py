"""What a session token says of itself. Read, not verified: the bus verifies; this only finds the inbox to listen on."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

import orjson

from remit_contracts.errors import NotSignedIn
from remit_contracts.identity import Caller, is_label


class Session(NamedTuple):
    """Tenant, user and session that a token claims; `expires_at` in seconds since the epoch."""

    caller: Caller
    expires_at: float

    @classmethod
    def of_token(cls, token: str) -> Session:
        """Raises NotSignedIn when the token is no session token."""
        try:
            payload = token.split(".")[1]
            claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            caller = Caller(claims["tenant"], claims["sub"], claims["sid"])
            expires_at = float(claims["exp"])
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, binascii.Error):
            raise NotSignedIn("this is no session token: get one with `remit token TENANT/HANDLE`") from None
        if not all(map(is_label, caller)):
            raise NotSignedIn("the token names no valid tenant, user and session")
        return cls(caller, expires_at)
