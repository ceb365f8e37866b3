"""Which connections there are: every aggregate kept warm, and found by name. Rebuilt from event one at start."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from uuid import UUID

from remit_contracts.identity import SYSTEM_USER
from remit_credential_broker.domain import Connection


class ConnectionBook:
    """All tenants' connections, those that are revoked included. Whoever changes one puts it in again."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, str], Connection] = {}
        self._generations: defaultdict[tuple[str, str, str], set[UUID]] = defaultdict(set)
        self._own_active: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._names: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    def put(self, tenant: str, connection: Connection) -> None:
        """Know this connection as it is now; an older one of the same owner and name is behind it for ever."""
        place = (tenant, connection.owner, connection.name)
        before = self._latest.get(place)
        change = int(connection.active) - int(before is not None and before.active)
        if connection.owner != SYSTEM_USER:
            self._own_active[tenant, connection.name] += change
        self._latest[place] = connection
        self._generations[place].add(connection.id)
        self._names[tenant, connection.owner].add(connection.name)

    def find(self, tenant: str, user: str, name: str) -> Connection | None:
        """The user's own of that name, else the tenant's; a revoked one only where there is no active one.

        An own and a shared one are never active under one name (`taken`), so this is no fallback to somebody else's.
        """
        own = self._latest.get((tenant, user, name))
        if own is not None and own.active:
            return own
        shared = self._latest.get((tenant, SYSTEM_USER, name))
        return shared if shared is not None and (shared.active or own is None) else own

    def taken(self, tenant: str, owner: str, name: str) -> str | None:
        """Who keeps `owner` from adding one of that name: `you`, `the tenant` or `somebody`; None when nobody does."""
        if self._is_active(tenant, owner, name):
            return "the tenant" if owner == SYSTEM_USER else "you"
        if owner == SYSTEM_USER:
            return "somebody" if self._own_active.get((tenant, name)) else None
        return "the tenant" if self._is_active(tenant, SYSTEM_USER, name) else None

    def next_generation(self, tenant: str, owner: str, name: str) -> int:
        """See `Connection.id_of`."""
        return len(self._generations.get((tenant, owner, name), ())) + 1

    def of_user(self, tenant: str, user: str) -> Iterator[Connection]:
        """One's own and the shared ones, by name."""
        owners = sorted({user, SYSTEM_USER}, key=lambda owner: owner == SYSTEM_USER)
        for name in sorted(set().union(*(self._names.get((tenant, owner), set()) for owner in owners))):
            for owner in owners:
                if connection := self._latest.get((tenant, owner, name)):
                    yield connection

    def _is_active(self, tenant: str, owner: str, name: str) -> bool:
        connection = self._latest.get((tenant, owner, name))
        return connection is not None and connection.active
