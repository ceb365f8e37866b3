"""Leases and their refusals, as events of the user whom they are for. No event holds a secret."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid5

from eventsourcing.domain import Aggregate

from remit_credential_broker.domain import NAMESPACE


class Lease(Aggregate):
    """One credential lent for one tool call. Its id follows from the permit's, so no permit gives two in a store."""

    TOPIC = "broker.Lease"

    def __init__(
        self,
        jti: str,
        session: str,
        run: str,
        ordinal: int,
        tool: str,
        connection: str,
        connection_id: str,
        scopes: list[str],
        ttl_seconds: float,
    ) -> None:
        self.jti = jti
        self.session = session
        self.run = run
        self.ordinal = ordinal
        self.tool = tool
        self.connection = connection
        self.connection_id = connection_id
        self.scopes = tuple(scopes)
        self.ttl_seconds = ttl_seconds
        self.revoked_at: datetime | None = None

    @staticmethod
    def id_of(tenant: str, jti: str) -> UUID:
        """The aggregate's id: one per permit."""
        return uuid5(NAMESPACE, f"lease/{tenant}/{jti}")

    @classmethod
    def issue(
        cls,
        *,
        lease_id: UUID,
        jti: str,
        session: str,
        run: str,
        ordinal: int,
        tool: str,
        connection: str,
        connection_id: str,
        scopes: Sequence[str],
        ttl_seconds: float,
        at: datetime,
    ) -> Lease:
        """Lent now, for `ttl_seconds`."""
        return cls._create(
            cls.Issued,
            id=lease_id,
            timestamp=at,
            jti=jti,
            session=session,
            run=run,
            ordinal=ordinal,
            tool=tool,
            connection=connection,
            connection_id=connection_id,
            scopes=list(scopes),
            ttl_seconds=ttl_seconds,
        )

    @property
    def expires_at(self) -> datetime:
        """When it ends by itself."""
        return self.created_on + timedelta(seconds=self.ttl_seconds)

    def revoke(self, *, reason: str, at: datetime) -> None:
        """End it now."""
        if self.revoked_at is None:
            self.trigger_event(self.Revoked, timestamp=at, reason=reason)

    class Event(Aggregate.Event):
        """Something that happened to it."""

    class Issued(Event, Aggregate.Created):
        TOPIC = "broker.Lease.Issued"
        jti: str
        session: str
        run: str
        ordinal: int
        tool: str
        connection: str
        connection_id: str
        scopes: list[str]
        ttl_seconds: float

    Created = Issued  # as above

    class Revoked(Event):
        TOPIC = "broker.Lease.Revoked"
        reason: str

        def apply(self, aggregate: Lease) -> None:
            aggregate.revoked_at = self.timestamp


class LeaseRefusal(Aggregate):
    """A lease that was asked for and not given. `jti` is null when the permit was not even one of policy's."""

    TOPIC = "broker.LeaseRefusal"

    def __init__(self, code: str, reason: str, jti: str | None, run: str, tool: str, connection: str) -> None:
        self.code = code
        self.reason = reason
        self.jti = jti
        self.run = run
        self.tool = tool
        self.connection = connection

    @classmethod
    def record(
        cls, *, code: str, reason: str, jti: str | None, run: str, tool: str, connection: str, at: datetime
    ) -> LeaseRefusal:
        """What was asked, as it was asked, and why not."""
        return cls._create(
            cls.Refused,
            timestamp=at,
            code=code,
            reason=reason,
            jti=jti,
            run=run,
            tool=tool,
            connection=connection,
        )

    class Event(Aggregate.Event):
        """Something that happened to it."""

    class Refused(Event, Aggregate.Created):
        TOPIC = "broker.Lease.Refused"
        code: str
        reason: str
        jti: str | None
        run: str
        tool: str
        connection: str

    Created = Refused  # as above
