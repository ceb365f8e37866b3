"""The hot path: a permit in, a credential out that only the tool host can read.

    permit verified -> it says what the subject and the request say -> not used, not older than this process
    -> the connection is there, and as wide as the permit -> the permit is used up -> sealed -> recorded, not waited for

From the check that a permit is unused to its being used up nothing is awaited, so that of many uses at once one wins.
What authorises the effect is the runtime's ToolCallAuthorized, on disk before the tool is called; the lease's own event
may therefore follow its answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from remit_chassis.permits import PermitVerifier
from remit_contracts.errors import Absent, Unavailable
from remit_contracts.fast_leases import LeaseAnswer, LeaseContent, LeaseRequest
from remit_contracts.identity import Caller
from remit_contracts.leases import (
    CONNECTION_ABSENT,
    CONNECTION_NOT_PERMITTED,
    CONNECTION_REVOKED,
    CONNECTION_SCOPE,
    CONNECTION_WITHOUT_HOST,
    PERMIT_BEFORE_START,
    PERMIT_EXPIRED,
    PERMIT_MISMATCH,
    PERMIT_USED,
    SCOPE_WIDENED,
    LeaseRefused,
)
from remit_contracts.permits import TTL_SECONDS, PermitClaims, PermitRefused
from remit_credential_broker.domain import Connection
from remit_credential_broker.lease_records import LeaseRecords
from remit_credential_broker.leases import Lease
from remit_credential_broker.projections import ConnectionBook
from remit_credential_broker.sealing import ToolHostBox
from remit_credential_broker.used_permits import UsedPermits
from remit_credential_broker.vault import Secrets

if TYPE_CHECKING:
    from remit_chassis.keyring import UserKeys


class Leasing:
    """Issues leases for one broker. It issues none until `open` says from when on permits count."""

    def __init__(
        self,
        *,
        user_keys: UserKeys,
        book: ConnectionBook,
        secrets: Secrets,
        verifier: PermitVerifier,
        box: ToolHostBox,
        used: UsedPermits,
        records: LeaseRecords,
        ttl_seconds: float,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._user_keys = user_keys
        self._book = book
        self._secrets = secrets
        self._verifier = verifier
        self._box = box
        self._used = used
        self._records = records
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._started_at: float | None = None

    def open(self, started_at: datetime) -> None:
        """Issue leases from now on, against permits that were issued after `started_at`."""
        self._started_at = started_at.timestamp()

    async def lease(self, payload: bytes, caller: Caller) -> bytes:
        """A LeaseRequest in, a LeaseAnswer out.

        Raises LeaseRefused, recorded, and MalformedCommand or Unavailable.
        """
        request = LeaseRequest.from_bytes(payload)
        await self._records.require_writable(caller.tenant)
        claims: PermitClaims | None = None
        try:
            # Before anything is used up: without this key the lease could not be recorded, and an erased user has none.
            if self._user_keys.cached(caller.tenant, caller.user) is None:
                await self._user_keys.key(caller.tenant, caller.user)
            now = self._clock()
            claims = self._verified(request, caller, now.timestamp())
            connection = self._connection(request, claims, caller)
            lease_id = Lease.id_of(caller.tenant, claims.jti)
            if not self._used.take(lease_id.hex, expires=claims.exp, now=now.timestamp()):
                reason = "this permit was used before, or is too old to tell: it is good for one call"
                raise LeaseRefused(reason, code=PERMIT_USED)
            secret = await self._secrets.get(caller.tenant, connection.owner, connection.secret_id)
            connection = self._connection(request, claims, caller)  # it may have been revoked while that was read
        except (Absent, LeaseRefused) as fault:
            refusal = fault if isinstance(fault, LeaseRefused) else _gone(request, fault)
            await self._records.refused(refusal, request, claims.jti if claims else None, caller)
            raise refusal from None
        return self._issue(lease_id, claims, connection, secret, caller, now)

    def _verified(self, request: LeaseRequest, caller: Caller, now: float) -> PermitClaims:
        if self._started_at is None:
            raise Unavailable("the credential broker has not read its records yet", retry_after_seconds=1.0)
        try:
            claims = self._verifier.verify(request.permit, now)
        except PermitRefused as refused:
            raise LeaseRefused(refused.reason, code=f"lease.{refused.refusal_code.replace('.', '_')}") from None
        try:
            claims.require(tenant=caller.tenant, user=caller.user, run=request.run, tool=request.tool)
        except PermitRefused as refused:
            raise LeaseRefused(refused.reason, code=PERMIT_MISMATCH) from None
        if claims.iat <= self._started_at:
            reason = "the permit is older than the credential broker's start: ask for a new decision"
            raise LeaseRefused(reason, code=PERMIT_BEFORE_START)
        if claims.exp - claims.iat > TTL_SECONDS + 1e-3:  # used ids are forgotten by what a permit's life can be
            raise LeaseRefused(f"the permit lives longer than {TTL_SECONDS:.0f} s", code=PERMIT_EXPIRED)
        return claims

    def _connection(self, request: LeaseRequest, claims: PermitClaims, caller: Caller) -> Connection:
        name = request.connection
        if CONNECTION_SCOPE + name not in claims.scopes:
            reason = f"the permit for {request.tool} does not name the connection {name}"
            raise LeaseRefused(reason, code=CONNECTION_NOT_PERMITTED)
        connection = self._book.find(caller.tenant, caller.user, name)
        if connection is None:
            raise LeaseRefused(
                f"{request.tool} needs the connection {name}. Connect first: "
                f"remit connections add {name} --kind bearer --host HOST:PORT --secret-file FILE"
                + "".join(f" --scope {scope}" for scope in _outside(claims)),
                code=CONNECTION_ABSENT,
            )
        if not connection.active:
            reason = f"the connection {name} was revoked: add it again with remit connections add {name}"
            raise LeaseRefused(reason, code=CONNECTION_REVOKED)
        if not connection.hosts:
            reason = f"the connection {name} names no host to send its secret to: revoke it, and add it with one"
            raise LeaseRefused(reason, code=CONNECTION_WITHOUT_HOST)
        if wider := sorted(set(_outside(claims)) - set(connection.scopes)):
            reason = (
                f"the connection {name} does not reach as far as {', '.join(wider)[:200]}: add it with --scope for each"
            )
            raise LeaseRefused(reason, code=SCOPE_WIDENED)
        return connection

    def _issue(
        self,
        lease_id: UUID,
        claims: PermitClaims,
        connection: Connection,
        secret: bytes,
        caller: Caller,
        now: datetime,
    ) -> bytes:
        expires_at = now + timedelta(seconds=self._ttl_seconds)
        scopes = _outside(claims)
        content = LeaseContent(
            lease=lease_id.hex,
            secret=secret.decode("ascii"),
            tenant=caller.tenant,
            user=caller.user,
            session=claims.session,
            run=claims.run,
            ordinal=claims.ordinal,
            tool=claims.tool,
            connection=connection.name,
            hosts=connection.hosts,
            scopes=scopes,
            jti=claims.jti,
            expires_at=expires_at.timestamp(),
        )
        sealed = self._box.seal(content.to_bytes())
        facts = {
            "lease_id": lease_id,
            "jti": claims.jti,
            "session": claims.session,
            "run": claims.run,
            "ordinal": claims.ordinal,
            "tool": claims.tool,
            "connection": connection.name,
            "connection_id": connection.id.hex,
            "scopes": scopes,
            "ttl_seconds": self._ttl_seconds,
            "at": now,
        }
        self._records.issued(facts, connection.id, self._monotonic() + self._ttl_seconds, caller)
        return LeaseAnswer(lease_id=lease_id.hex, sealed=sealed, expires_at=expires_at).to_bytes()


def _outside(claims: PermitClaims) -> tuple[str, ...]:
    """The scopes that mean something to the outside system."""
    return tuple(scope for scope in claims.scopes if not scope.startswith(CONNECTION_SCOPE))


def _gone(request: LeaseRequest, fault: Absent) -> LeaseRefused:
    return LeaseRefused(f"the credential of {request.connection} is gone: {fault.reason}", code=CONNECTION_ABSENT)
