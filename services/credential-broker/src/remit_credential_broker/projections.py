"""What the broker knows without reading: connections by owner and name. Rebuilt from event one."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from remit_contracts.connections import ConnectionRow, Status
from remit_contracts.identity import SYSTEM_USER


class KnownConnection(NamedTuple):
    """A connection as its events leave it."""

    tenant: str
    owner: str
    name: str
    kind: str
    hosts: tuple[str, ...]
    scopes: tuple[str, ...]
    active: bool
    added_at: datetime

    @property
    def row(self) -> ConnectionRow:
        """For people."""
        status: Status = "active" if self.active else "revoked"
        return ConnectionRow(
            name=self.name,
            kind=self.kind,
            hosts=self.hosts,
            scopes=self.scopes,
            shared=self.owner == SYSTEM_USER,
            status=status,
            added_at=self.added_at.isoformat(),
        )


class Connections:
    """Every tenant's."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], KnownConnection] = {}

    def put(self, aggregate: Any) -> None:
        """Take over an aggregate's state."""
        self._known[aggregate.tenant, aggregate.owner, aggregate.name] = KnownConnection(
            aggregate.tenant,
            aggregate.owner,
            aggregate.name,
            aggregate.kind,
            aggregate.hosts,
            aggregate.scopes,
            aggregate.active,
            aggregate.created_on,
        )

    def owned(self, tenant: str, owner: str, name: str) -> KnownConnection | None:
        """That owner's connection of the name, revoked or not."""
        return self._known.get((tenant, owner, name))

    def usable(self, tenant: str, user: str, name: str) -> KnownConnection | None:
        """The user's own when there is one, else the tenant's shared one: never anybody else's."""
        return self.owned(tenant, user, name) or self.owned(tenant, SYSTEM_USER, name)

    def of(self, tenant: str, user: str) -> list[KnownConnection]:
        """The user's own and the tenant's shared ones, by name."""
        found = [
            known for known in self._known.values() if known.tenant == tenant and known.owner in (user, SYSTEM_USER)
        ]
        return sorted(found, key=lambda known: (known.name, known.owner))
