"""Connections: the rules, and the events that record what happened. No event holds a secret; leases are in leases.py.

    Absent
    +-- ConnectionRevoked    absent.connection_revoked

A connection's events are its owner's, a shared one's the user `system`'s, so that erasing whoever added it does not
take it from the tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from eventsourcing.domain import Aggregate

from remit_contracts.errors import Absent

NAMESPACE = UUID("0c7b4a6e-5d0a-4f0e-8f5e-1b7f7a3a9c21")


class ConnectionRevoked(Absent):
    """It was, and its secret is destroyed."""

    code = "absent.connection_revoked"

    def __init__(self, *, name: str) -> None:
        super().__init__(f"the connection {name} was revoked: add it again", code=self.code)


class Connection(Aggregate):
    """A way into an outside system. `owner` is a user's id, or `system` for one that the tenant shares."""

    TOPIC = "broker.Connection"

    def __init__(
        self,
        owner: str,
        name: str,
        kind: str,
        hosts: list[str],
        scopes: list[str],
        secret_id: str,
        added_by: str,
        decision: dict[str, Any],
    ) -> None:
        self.owner = owner
        self.name = name
        self.kind = kind
        self.hosts = tuple(hosts)
        self.scopes = tuple(scopes)
        self.secret_id = secret_id
        self.added_by = added_by
        self.decision_id = decision.get("decision_id")
        self.revoked_at: datetime | None = None
        self.last_tested_at: datetime | None = None
        self.last_test_ok: bool | None = None

    @staticmethod
    def id_of(tenant: str, owner: str, name: str, *, generation: int) -> UUID:
        """The aggregate's id. `generation` counts from 1 those that this owner has had under this name, so that two
        which are added at the same moment conflict."""
        return uuid5(NAMESPACE, f"connection/{tenant}/{owner}/{name}/{generation}")

    @classmethod
    def add(
        cls,
        *,
        connection_id: UUID,
        owner: str,
        name: str,
        kind: str,
        hosts: Sequence[str],
        scopes: Sequence[str],
        secret_id: UUID,
        added_by: str,
        decision: dict[str, Any],
        at: datetime,
    ) -> Connection:
        """`secret_id` is the secret's place in the vault, `decision` the whole recorded decision that allowed it."""
        return cls._create(
            cls.Added,
            id=connection_id,
            timestamp=at,
            owner=owner,
            name=name,
            kind=kind,
            hosts=list(hosts),
            scopes=list(scopes),
            secret_id=secret_id.hex,
            added_by=added_by,
            decision=decision,
        )

    @property
    def active(self) -> bool:
        """Whether leases are issued on it."""
        return self.revoked_at is None

    def start_test(self, *, host: str, path: str, by: str, decision: dict[str, Any] | None, at: datetime) -> None:
        """Its secret is about to be sent there; raises ConnectionRevoked."""
        self._require_active()
        self.trigger_event(self.TestStarted, timestamp=at, host=host, path=path, by=by, decision=decision)

    def finish_test(self, *, status: int | None, fault: str | None, ok: bool, at: datetime) -> None:
        """What came of it: a status, or why there is none."""
        self.trigger_event(self.Tested, timestamp=at, status=status, fault=fault, ok=ok)

    def revoke(self, *, by: str, decision: dict[str, Any] | None, at: datetime) -> None:
        """No more leases; raises ConnectionRevoked when it is already."""
        self._require_active()
        self.trigger_event(self.Revoked, timestamp=at, by=by, decision=decision)

    def _require_active(self) -> None:
        if not self.active:
            raise ConnectionRevoked(name=self.name)

    class Event(Aggregate.Event):
        """Something that happened to it."""

    class Added(Event, Aggregate.Created):
        TOPIC = "broker.Connection.Added"
        owner: str
        name: str
        kind: str
        hosts: list[str]
        scopes: list[str]
        secret_id: str
        added_by: str
        decision: dict[str, Any]

    Created = Added  # the library would make one more event of this name

    class TestStarted(Event):
        TOPIC = "broker.Connection.TestStarted"
        host: str
        path: str
        by: str
        decision: dict[str, Any] | None

    class Tested(Event):
        TOPIC = "broker.Connection.Tested"
        status: int | None
        fault: str | None
        ok: bool

        def apply(self, aggregate: Connection) -> None:
            aggregate.last_tested_at = self.timestamp
            aggregate.last_test_ok = self.ok

    class Revoked(Event):
        TOPIC = "broker.Connection.Revoked"
        by: str
        decision: dict[str, Any] | None

        def apply(self, aggregate: Connection) -> None:
            aggregate.revoked_at = self.timestamp
