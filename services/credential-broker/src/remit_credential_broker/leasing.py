"""The hot path: a permit becomes a sealed lease, once.

Everything is checked against what the bus proves (tenant and user of the subject) and what policy signed (the
permit); the asker's own words only name a connection, and that name must be among the permit's scopes.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID, uuid4

import structlog
from nacl.public import Box

from remit_chassis.permits import PermitVerifier
from remit_contracts.errors import Refusal, Unavailable
from remit_contracts.fast_leases import LeaseAnswer, LeaseContent, LeaseRequest
from remit_contracts.identity import Caller
from remit_contracts.leases import (
    CONNECTION_ABSENT,
    CONNECTION_REVOKED,
    CONNECTION_SCOPE,
    SCOPE_WIDENED,
    TTL_SECONDS,
    LeaseRefused,
)
from remit_contracts.permits import PermitClaims
from remit_credential_broker.domain import Lease, LeaseRefusal
from remit_credential_broker.projections import Connections, KnownConnection
from remit_credential_broker.used_permits import UsedPermits

if TYPE_CHECKING:
    import asyncio

    from remit_chassis.eventstore.store import EventStore


class Secrets(Protocol):
    """Where a connection's secret is kept; see VaultFile."""

    def get_secret(self, tenant: str, owner: str, name: str) -> bytes:
        """Raises Absent."""


class Leasing:
    """Issues leases. `box` goes from the broker's key to the tool host's."""

    def __init__(
        self,
        *,
        verifier: PermitVerifier,
        used: UsedPermits,
        connections: Connections,
        secrets: Secrets,
        box: Box,
        store_of: Callable[[str], EventStore],
        now: Callable[[], float] = time.time,
        new_id: Callable[[], UUID] = uuid4,
    ) -> None:
        self._verifier = verifier
        self._used = used
        self._connections = connections
        self._secrets = secrets
        self._box = box
        self._store_of = store_of
        self._now = now
        self._new_id = new_id

    async def lease(self, payload: bytes, caller: Caller) -> bytes:
        """A LeaseAnswer; a refusal is recorded before it is raised."""
        request = LeaseRequest.from_bytes(payload)
        now = self._now()
        claims: PermitClaims | None = None
        try:
            claims = self._verifier.verify(request.permit, now)
            claims.require(tenant=caller.tenant, user=caller.user)
            connection = self._connection(caller, request.connection, claims)
            store = self._store_of(caller.tenant)
            if store.fault:
                raise Unavailable(f"leases cannot be recorded, so none is issued: {store.fault}")
            secret = self._secrets.get_secret(caller.tenant, connection.owner, connection.name)
            self._used.use(claims, now=now)
        except Refusal as refusal:
            await self._record_refusal(refusal, request.connection, claims, caller, now)
            raise
        return self._issue(claims, connection, secret, store, now).to_bytes()

    def _connection(self, caller: Caller, name: str, claims: PermitClaims) -> KnownConnection:
        if f"{CONNECTION_SCOPE}{name}" not in claims.scopes:
            raise LeaseRefused(f"the permit was not issued for the connection {name!r}", code=SCOPE_WIDENED)
        connection = self._connections.usable(caller.tenant, caller.user, name)
        if connection is None:
            raise LeaseRefused(
                f"connect first: `remit connections add {name} --kind bearer --secret-file FILE --host HOST:PORT`",
                code=CONNECTION_ABSENT,
            )
        if not connection.active:
            raise LeaseRefused(f"the connection {name!r} was revoked: add it again", code=CONNECTION_REVOKED)
        asked = {scope for scope in claims.scopes if not scope.startswith(CONNECTION_SCOPE)}
        if wider := sorted(asked.difference(connection.scopes)):
            raise LeaseRefused(f"the connection {name!r} does not reach {', '.join(wider)}", code=SCOPE_WIDENED)
        return connection

    def _issue(
        self, claims: PermitClaims, connection: KnownConnection, secret: bytes, store: EventStore, now: float
    ) -> LeaseAnswer:
        lease_id = self._new_id()
        content = LeaseContent(
            lease=lease_id.hex,
            secret=secret.decode(),
            tenant=claims.tenant,
            user=claims.user,
            session=claims.session,
            run=claims.run,
            ordinal=claims.ordinal,
            tool=claims.tool,
            connection=connection.name,
            hosts=connection.hosts,
            scopes=tuple(scope for scope in claims.scopes if not scope.startswith(CONNECTION_SCOPE)),
            jti=claims.jti,
            expires_at=now + TTL_SECONDS,
        )
        issued = Lease.issue(
            lease_id=lease_id,
            connection=connection.name,
            owner=connection.owner,
            tool=claims.tool,
            run=claims.run,
            ordinal=claims.ordinal,
            session=claims.session,
            jti=claims.jti,
            expires_at=content.expires_at,
            at=datetime.fromtimestamp(now, UTC),
        )
        # Not waited for: the effect's own authorisation is, by the tool gate, and a lost use is covered by UsedPermits.
        store.save_later(issued, user=claims.user).add_done_callback(_note_failure)
        sealed = b64encode(bytes(self._box.encrypt(content.to_bytes()))).decode()
        return LeaseAnswer(lease_id=lease_id.hex, sealed=sealed, expires_at=content.expires_at)

    async def _record_refusal(
        self, refusal: Refusal, connection: str, claims: PermitClaims | None, caller: Caller, now: float
    ) -> None:
        recorded = LeaseRefusal.record(
            refusal_id=self._new_id(),
            connection=connection,
            code=refusal.refusal_code,
            reason=refusal.reason,
            jti=claims.jti if claims else "",
            run=claims.run if claims else "",
            at=datetime.fromtimestamp(now, UTC),
        )
        try:
            await self._store_of(caller.tenant).save(recorded, user=caller.user)
        except Refusal as fault:  # refused it stays, and said in the log: there is nothing left to refuse with
            structlog.get_logger().error("lease.refusal_not_recorded", code=refusal.refusal_code, fault=fault.reason)


def _note_failure(saved: asyncio.Future[int]) -> None:
    if not saved.cancelled() and (fault := saved.exception()):
        structlog.get_logger().error("lease.not_recorded", fault=str(fault))
