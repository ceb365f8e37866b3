"""Whether a call may be carried out: its permit checked once more, by the process that acts on it.

The runtime has asked policy already. The tool host believes none of it: what it does rests on the permit's
signature, so a runtime that was taken over can replay nothing and authorise nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

from remit_agent_runtime.toolhost.definitions import HttpTool
from remit_agent_runtime.toolhost.once import ForwardClock, UsedOnce
from remit_agent_runtime.toolhost.refusals import LEASE_INVALID, LEASE_REQUIRED, ToolRefused
from remit_agent_runtime.toolhost.wire import Call
from remit_chassis.permits import PermitVerifier
from remit_contracts.errors import Refusal
from remit_contracts.fast_leases import LeaseContent
from remit_contracts.permits import MISMATCH, USED, PermitClaims, PermitRefused, args_digest

BEFORE_START: Final = "permit.before_start"
"""The permit is older than this process, which therefore cannot know whether it was used."""
TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}", re.ASCII)
"""A little more than RFC 6750's b64token, as some servers issue; nothing that could end or begin a header."""
MAX_LEASE_CHARACTERS: Final = 64 * 1024


class Admission:
    """Verifies permits and opens leases, each at most once. `started_at` is this host's start, seconds since the
    epoch."""

    def __init__(self, *, permit_public_key: bytes, started_at: float) -> None:
        self._verifier = PermitVerifier(permit_public_key)
        self._started_at = started_at
        self._forward = ForwardClock()
        self._used = UsedOnce()

    def admit(self, call: Call, *, now: float) -> PermitClaims:
        """The claims of a permit for exactly this call, used up now; raises PermitRefused or MalformedCommand."""
        now = self._forward(now)
        claims = self._verifier.verify(call.permit, now)
        if claims.iat < self._started_at:
            raise PermitRefused("the permit is older than the tool host: ask for a new decision", code=BEFORE_START)
        claims.require(tool=call.tool, args_digest=args_digest(call.arguments))
        if call.idempotency_key != claims.effect_key:
            raise PermitRefused("the permit was issued for another call of the run", code=MISMATCH)
        if not self._used.take(claims.jti, expires=claims.exp, now=now):
            raise PermitRefused("the permit has been used", code=USED)
        return claims


class LeaseOpener:
    """Holds the tool host's private key; nothing else does."""

    def __init__(self, *, key: bytes, broker_public_key: bytes) -> None:
        self._box = Box(PrivateKey(key), PublicKey(broker_public_key))
        self._forward = ForwardClock()
        self._used = UsedOnce()

    def open(self, sealed: str | None, *, claims: PermitClaims, tool: HttpTool, now: float) -> LeaseContent:
        """The lease for exactly the call that `claims` permit, which is used up now; raises ToolRefused."""
        if not sealed:
            raise ToolRefused(f"the tool {tool.id} needs a lease on {tool.connection}", code=LEASE_REQUIRED)
        lease = self._unseal(sealed)
        now = self._forward(now)
        for name in ("jti", "tenant", "user", "session", "run", "ordinal", "tool"):
            if getattr(lease, name) != getattr(claims, name):
                raise ToolRefused(f"the lease was issued for another {name}", code=LEASE_INVALID)
        if lease.connection != tool.connection:
            raise ToolRefused("the lease is on another connection than the tool's", code=LEASE_INVALID)
        if not now < lease.expires_at:
            raise ToolRefused("the lease has expired", code=LEASE_INVALID)
        if not TOKEN.fullmatch(lease.secret):
            raise ToolRefused("the leased credential is no bearer token (RFC 6750)", code=LEASE_INVALID)
        if not self._used.take(lease.lease, expires=lease.expires_at, now=now):
            raise ToolRefused("the lease has been used", code=LEASE_INVALID)
        return lease

    def _unseal(self, sealed: str) -> LeaseContent:
        try:
            if len(sealed) > MAX_LEASE_CHARACTERS:
                raise ValueError("too long")
            return LeaseContent.from_bytes(self._box.decrypt(base64.b64decode(sealed, validate=True)))
        except (binascii.Error, ValueError, TypeError, CryptoError, Refusal):
            raise ToolRefused("the lease was not sealed by the broker for this tool host", code=LEASE_INVALID) from None
