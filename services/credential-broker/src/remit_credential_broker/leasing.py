"""The hot path: a permit in, a credential out that only the tool host can read.

    permit verified -> it says what the subject and the request say -> not used, not older than this process
    -> the connection is there, and as wide as the permit -> the permit is used up -> sealed -> recorded, not waited for

From the check that a permit is unused to its being used up nothing is awaited, so that of many uses at once one wins.
What authorises the effect is the runtime's ToolCallAuthorized, on disk before the tool is called; the lease's own event
may therefore follow its answer. One that could not be stored is stored before the next lease is issued.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import structlog

from remit_chassis.permits import PermitVerifier
from remit_contracts.errors import Absent, Conflict, Refusal, Unavailable
from remit_contracts.fast_leases import LeaseAnswer, LeaseContent, LeaseRequest
from remit_contracts.identity import Caller
from remit_contracts.leases import (
    CONNECTION_ABSENT,
    CONNECTION_REVOKED,
    PERMIT_BEFORE_START,
    PERMIT_EXPIRED,
    PERMIT_MISMATCH,
    PERMIT_USED,
    SCOPE_WIDENED,
    LeaseRefused,
)
from remit_contracts.permits import TTL_SECONDS, PermitClaims, PermitRefused
from remit_credential_broker.domain import Connection, Lease, LeaseRefusal
from remit_credential_broker.live_leases import LiveLease, LiveLeases
from remit_credential_broker.projections import ConnectionBook
from remit_credential_broker.sealing import ToolHostBox
from remit_credential_broker.used_permits import UsedPermits
from remit_credential_broker.vault import Secrets

if TYPE_CHECKING:
    import asyncio

    from remit_chassis.eventstore.store import EventStore
    from remit_chassis.keyring import UserKeys

MAX_REASON_CHARACTERS: Final = 500


class Leasing:
    """Issues leases for one broker. It issues none until `open` says from when on permits count."""

    def __init__(
        self,
        *,
        store_of: Callable[[str], EventStore],
        user_keys: UserKeys,
        book: ConnectionBook,
        secrets: Secrets,
        verifier: PermitVerifier,
        box: ToolHostBox,
        used: UsedPermits,
        live: LiveLeases,
        ttl_seconds: float,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store_of = store_of
        self._user_keys = user_keys
        self._book = book
        self._secrets = secrets
        self._verifier = verifier
        self._box = box
        self._used = used
        self._live = live
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._started_at: float | None = None
        self._unrecorded: defaultdict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)

    def open(self, started_at: datetime) -> None:
        """Issue leases from now on, against permits that were issued after `started_at`."""
        self._started_at = started_at.timestamp()

    async def lease(self, payload: bytes, caller: Caller) -> bytes:
        """A LeaseRequest in, a LeaseAnswer out.

        Raises LeaseRefused, recorded, and MalformedCommand or Unavailable.
        """
        request = LeaseRequest.from_bytes(payload)
        if self._started_at is None:
            raise Unavailable("the credential broker has not read its records yet", retry_after_seconds=1.0)
        store = self._store_of(caller.tenant)
        if store.fault or self._unrecorded.get(caller.tenant):
            await self._make_good(caller.tenant, store)
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
                raise LeaseRefused(
                    "this permit was used before, or is too old to tell: it is good for one call", code=PERMIT_USED
                )
            secret = await self._secrets.get(caller.tenant, connection.owner, connection.secret_id)
            connection = self._connection(request, claims, caller)  # it may have been revoked while that was read
        except Absent as gone:
            reason = f"the credential of {request.connection} is gone: {gone.reason}"
            refusal = LeaseRefused(reason, code=CONNECTION_ABSENT)
            await self._record_refusal(store, refusal, request, claims, caller)
            raise refusal from None
        except LeaseRefused as refusal:
            await self._record_refusal(store, refusal, request, claims, caller)
            raise
        return self._issue(store, lease_id, claims, connection, secret, caller, now)

    def _verified(self, request: LeaseRequest, caller: Caller, now: float) -> PermitClaims:
        try:
            claims = self._verifier.verify(request.permit, now)
        except PermitRefused as refused:
            raise LeaseRefused(refused.reason, code=f"lease.{refused.refusal_code.replace('.', '_')}") from None
        try:
            claims.require(tenant=caller.tenant, user=caller.user, run=request.run, tool=request.tool)
        except PermitRefused as refused:
            raise LeaseRefused(refused.reason, code=PERMIT_MISMATCH) from None
        if self._started_at is None or claims.iat <= self._started_at:
            reason = "the permit is older than the credential broker's start: ask for a new decision"
            raise LeaseRefused(reason, code=PERMIT_BEFORE_START)
        if claims.exp - claims.iat > TTL_SECONDS + 1e-3:  # used ids are forgotten by what a permit's life can be
            raise LeaseRefused(f"the permit lives longer than {TTL_SECONDS:.0f} s", code=PERMIT_EXPIRED)
        return claims

    def _connection(self, request: LeaseRequest, claims: PermitClaims, caller: Caller) -> Connection:
        connection = self._book.find(caller.tenant, caller.user, request.connection)
        if connection is None:
            raise LeaseRefused(
                f"{request.tool} needs the connection {request.connection}. Connect first: "
                f"remit connections add {request.connection} --kind bearer --host HOST:PORT --secret-file FILE",
                code=CONNECTION_ABSENT,
            )
        if not connection.active:
            raise LeaseRefused(
                f"the connection {request.connection} was revoked: remit connections add {request.connection} ...",
                code=CONNECTION_REVOKED,
            )
        if wider := sorted(set(claims.scopes) - set(connection.scopes)):
            raise LeaseRefused(
                f"the connection {request.connection} does not reach as far as {', '.join(wider)[:200]}",
                code=SCOPE_WIDENED,
            )
        return connection

    def _issue(
        self,
        store: EventStore,
        lease_id: UUID,
        claims: PermitClaims,
        connection: Connection,
        secret: bytes,
        caller: Caller,
        now: datetime,
    ) -> bytes:
        expires_at = now + timedelta(seconds=self._ttl_seconds)
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
            scopes=claims.scopes,
            jti=claims.jti,
            expires_at=expires_at.timestamp(),
        )
        sealed = self._box.seal(content.to_bytes())
        facts: dict[str, Any] = {
            "lease_id": lease_id,
            "jti": claims.jti,
            "session": claims.session,
            "run": claims.run,
            "ordinal": claims.ordinal,
            "tool": claims.tool,
            "connection": connection.name,
            "connection_id": connection.id.hex,
            "scopes": claims.scopes,
            "ttl_seconds": self._ttl_seconds,
            "at": now,
        }
        recorded = store.save_later(Lease.issue(**facts), user=caller.user)
        recorded.add_done_callback(partial(self._recorded, caller, facts))
        until = self._monotonic() + self._ttl_seconds
        self._live.add(LiveLease(lease_id, caller.tenant, caller.user, connection.id, until, recorded))
        return LeaseAnswer(lease_id=lease_id.hex, sealed=sealed, expires_at=expires_at).to_bytes()

    # -- what is recorded ------------------------------------------------------------------------------------------

    def _recorded(self, caller: Caller, facts: dict[str, Any], recorded: asyncio.Future[int]) -> None:
        if recorded.cancelled() or recorded.exception() is None:
            return
        structlog.get_logger().error(
            "lease.unrecorded", lease_id=facts["lease_id"].hex, tenant=caller.tenant, fault=str(recorded.exception())
        )
        self._unrecorded[caller.tenant].append((caller.user, facts))

    async def _make_good(self, tenant: str, store: EventStore) -> None:
        """Store what could not be stored; raises Unavailable while that still fails, so that no lease is issued."""
        if store.fault:
            await store.probe()
        waiting = self._unrecorded.pop(tenant, [])
        while waiting:
            user, facts = waiting[-1]
            try:
                await store.save(Lease.issue(**facts), user=user)
            except Conflict:  # it was stored after all
                pass
            except Absent:
                structlog.get_logger().error("lease.unrecordable", lease_id=facts["lease_id"].hex, tenant=tenant)
            except BaseException:
                self._unrecorded[tenant].extend(waiting)
                raise
            waiting.pop()

    async def make_all_good(self) -> None:
        """Before the end: what is still unrecorded, as far as the stores take it."""
        for tenant in list(self._unrecorded):
            try:
                await self._make_good(tenant, self._store_of(tenant))
            except Refusal as fault:
                structlog.get_logger().error("lease.unrecorded_at_stop", tenant=tenant, fault=fault.reason)

    async def _record_refusal(
        self,
        store: EventStore,
        refusal: LeaseRefused,
        request: LeaseRequest,
        claims: PermitClaims | None,
        caller: Caller,
    ) -> None:
        """On disk before it is answered, where it can be: the answer is no either way."""
        record = LeaseRefusal.record(
            code=refusal.refusal_code,
            reason=refusal.reason[:MAX_REASON_CHARACTERS],
            jti=claims.jti if claims else None,
            run=request.run,
            tool=request.tool,
            connection=request.connection,
            at=self._clock(),
        )
        try:
            await store.save(record, user=caller.user)
        except Refusal as fault:
            structlog.get_logger().error(
                "lease.refusal_unrecorded", code=refusal.refusal_code, tenant=caller.tenant, fault=fault.reason
            )

    # -- ending ----------------------------------------------------------------------------------------------------

    async def revoke_on(self, tenant: str, connection_id: UUID) -> None:
        """End every lease on a connection: what is under way at the tool host ends by its expiry."""
        store = self._store_of(tenant)
        for ended in self._live.take_of(connection_id):
            try:
                await ended.recorded
                lease = await store.load(Lease, ended.lease_id)
                lease.revoke(reason="the connection was revoked", at=self._clock())
                await store.save(lease, user=ended.user)
            except Refusal as fault:
                structlog.get_logger().error(
                    "lease.revocation_unrecorded", lease_id=ended.lease_id.hex, tenant=tenant, fault=fault.reason
                )
