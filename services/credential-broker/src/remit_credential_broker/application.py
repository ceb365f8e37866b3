"""Connections: add, look at, test, revoke. Load, call one method, save, put it into the book.

Absent
+-- ConnectionAbsent    absent.connection
Conflict
+-- ConnectionTaken     conflict.connection_taken
+-- NoHost              conflict.connection_without_host
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from remit_contracts import connections as messages
from remit_contracts.errors import Absent, Conflict
from remit_contracts.identity import SYSTEM_USER, Caller
from remit_credential_broker.decisions import Decide
from remit_credential_broker.domain import Connection
from remit_credential_broker.probe import ProbeResult
from remit_credential_broker.projections import ConnectionBook
from remit_credential_broker.sealing import Inbound
from remit_credential_broker.vault import Secrets

if TYPE_CHECKING:
    from remit_chassis.eventstore.store import EventStore

Probe = Callable[[str, str, str], Awaitable[ProbeResult]]
"""`probe(host, path, secret)`."""

RevokeLeases = Callable[[UUID], Awaitable[None]]
"""`revoke_leases(connection id)`."""


class ConnectionAbsent(Absent):
    """Neither one's own nor shared."""

    code = "absent.connection"

    def __init__(self, *, name: str) -> None:
        super().__init__(f"there is no connection {name}: `remit connections list` shows yours", code=self.code)


class ConnectionTaken(Conflict):
    """A name stands for one credential: what is active under it is never silently replaced or stood in for."""

    code = "conflict.connection_taken"

    def __init__(self, *, name: str, holder: str) -> None:
        has = "have" if holder == "you" else "has"
        super().__init__(f"{holder} {has} a connection {name}: revoke it, or choose another name", code=self.code)


class NoHost(Conflict):
    """There is nowhere that its secret may be sent."""

    code = "conflict.connection_without_host"

    def __init__(self, *, name: str) -> None:
        super().__init__(f"the connection {name} names no host: revoke it, and add it with one", code=self.code)


class Connections:
    """Use cases for one broker; changes of a tenant's connections go one at a time."""

    def __init__(
        self,
        *,
        store_of: Callable[[str], EventStore],
        book: ConnectionBook,
        secrets: Secrets,
        inbound: Inbound,
        decide: Decide,
        probe: Probe,
        revoke_leases: RevokeLeases,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._store_of = store_of
        self._book = book
        self._secrets = secrets
        self._inbound = inbound
        self._decide = decide
        self._probe = probe
        self._revoke_leases = revoke_leases
        self._clock = clock
        self._new_id = new_id
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def sealing_key(self) -> str:
        """The broker's public key in hex."""
        return self._inbound.public_key

    async def add(self, command: messages.AddConnection, caller: Caller) -> messages.ConnectionShown:
        """Raises Denied, ConnectionTaken, MalformedCommand for a secret that does not open or fit, or Unavailable."""
        secret = self._inbound.open_bearer(command.sealed_secret)
        action, owner = ("connection.share", SYSTEM_USER) if command.shared else ("connection.add", caller.user)
        decision = await self._decide(caller, action, command.name)
        async with self._changing[caller.tenant]:
            if holder := self._book.taken(caller.tenant, owner, command.name):
                raise ConnectionTaken(name=command.name, holder=holder)
            generation = self._book.next_generation(caller.tenant, owner, command.name)
            connection = Connection.add(
                connection_id=Connection.id_of(caller.tenant, owner, command.name, generation=generation),
                owner=owner,
                name=command.name,
                kind=command.kind,
                hosts=command.hosts,
                scopes=command.scopes,
                secret_id=self._new_id(),
                added_by=caller.user,
                decision=decision,
                at=self._clock(),
            )
            # The secret first: a connection that is recorded has one, whatever happens in between.
            await self._secrets.put(caller.tenant, owner, connection.secret_id, secret)
            await self._save_new(caller.tenant, connection)
        return shown(connection)

    async def _save_new(self, tenant: str, connection: Connection) -> None:
        store = self._store_of(tenant)
        try:
            await store.save(connection, user=connection.owner)
        except Conflict:
            # An earlier attempt was stored after all, though it was answered as Unavailable.
            await self._secrets.destroy(tenant, connection.owner, connection.secret_id)
            self._book.put(tenant, await store.load(Connection, connection.id))
            holder = "the tenant" if connection.owner == SYSTEM_USER else "you"
            raise ConnectionTaken(name=connection.name, holder=holder) from None
        self._book.put(tenant, connection)

    def list(self, caller: Caller) -> messages.ConnectionsListed:
        """One's own and the shared ones, by name."""
        found = self._book.of_user(caller.tenant, caller.user)
        return messages.ConnectionsListed(connections=tuple(map(shown, found)))

    def show(self, name: str, caller: Caller) -> messages.ConnectionShown:
        """Raises ConnectionAbsent."""
        return shown(self._find(name, caller))

    async def test(self, name: str, path: str, caller: Caller) -> messages.ConnectionTested:
        """Recorded before the secret leaves, and after.

        Raises ConnectionAbsent, ConnectionRevoked, NoHost or Denied.
        """
        connection = self._find(name, caller)
        decision = await self._decided_if_shared(connection, caller)
        if not connection.hosts:
            raise NoHost(name=name)
        host = connection.hosts[0]
        connection = await self._change(
            caller.tenant,
            connection,
            lambda fresh: fresh.start_test(host=host, path=path, by=caller.user, decision=decision, at=self._clock()),
        )
        secret = await self._secrets.get(caller.tenant, connection.owner, connection.secret_id)
        result = await self._probe(host, path, secret.decode("ascii"))
        tested_at = self._clock()
        await self._change(
            caller.tenant,
            connection,
            lambda fresh: fresh.finish_test(status=result.status, fault=result.fault, ok=result.ok, at=tested_at),
        )
        return messages.ConnectionTested(
            name=name, host=host, path=path, ok=result.ok, status=result.status, fault=result.fault, tested_at=tested_at
        )

    async def revoke(self, name: str, caller: Caller) -> messages.ConnectionShown:
        """Record it, destroy the secret, end its leases; raises ConnectionAbsent, ConnectionRevoked or Denied."""
        connection = self._find(name, caller)
        decision = await self._decided_if_shared(connection, caller)
        revoked = await self._change(
            caller.tenant,
            connection,
            lambda fresh: fresh.revoke(by=caller.user, decision=decision, at=self._clock()),
        )
        await self._secrets.destroy(caller.tenant, revoked.owner, revoked.secret_id)
        await self._revoke_leases(revoked.id)
        return shown(revoked)

    def _find(self, name: str, caller: Caller) -> Connection:
        connection = self._book.find(caller.tenant, caller.user, name)
        if connection is None:
            raise ConnectionAbsent(name=name)
        return connection

    async def _decided_if_shared(self, connection: Connection, caller: Caller) -> dict[str, Any] | None:
        if connection.owner != SYSTEM_USER:
            return None
        return await self._decide(caller, "connection.share", connection.name)

    async def _change(self, tenant: str, connection: Connection, change: Callable[[Connection], None]) -> Connection:
        store = self._store_of(tenant)
        async with self._changing[tenant]:
            fresh = await store.load(Connection, connection.id)
            change(fresh)
            await store.save(fresh, user=fresh.owner)
            self._book.put(tenant, fresh)
        return fresh


def shown(connection: Connection) -> messages.ConnectionShown:
    """A connection as users see it."""
    return messages.ConnectionShown(
        name=connection.name,
        kind="bearer",
        shared=connection.owner == SYSTEM_USER,
        status="active" if connection.active else "revoked",
        hosts=connection.hosts,
        scopes=connection.scopes,
        added_at=connection.created_on,
        revoked_at=connection.revoked_at,
        last_tested_at=connection.last_tested_at,
        last_test_ok=connection.last_test_ok,
    )
