"""Use cases of connections and keys: decide, load, one call, save; the vault is written before the event that tells
of it."""

from __future__ import annotations

import asyncio
import binascii
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from remit_chassis.vaultfile import VaultFile
from remit_contracts.connections import (
    MAX_SECRET_BYTES,
    AddConnection,
    ConnectionRefused,
    ConnectionTested,
    SealedSecretRefused,
    TestConnection,
)
from remit_contracts.errors import Absent
from remit_contracts.identity import SYSTEM_USER, Caller, is_label
from remit_contracts.leases import LeaseRow
from remit_credential_broker.domain import Connection, Lease, NoConnection
from remit_credential_broker.http_probe import probe
from remit_credential_broker.projections import Connections, KnownConnection
from remit_credential_broker.used_permits import KEPT_SECONDS, UsedPermits

if TYPE_CHECKING:
    from remit_chassis.eventstore.store import EventStore

PAGE = 1000
Decide = Callable[[Caller, str, str, str], Awaitable[dict[str, Any]]]
"""`decide(caller, action, resource_type, resource_id)`: the recorded allow; raises Denied or Unavailable."""


class Broker:
    """Everything but the hot path."""

    def __init__(
        self,
        *,
        vault: VaultFile,
        connections: Connections,
        sealing_key: PrivateKey,
        box_public_keys: Path,
        store_of: Callable[[str], EventStore],
        decide: Decide,
        clock: Callable[[], datetime],
    ) -> None:
        self._vault = vault
        self._connections = connections
        self._sealing_key = sealing_key
        self._box_public_keys = box_public_keys
        self._store_of = store_of
        self._decide = decide
        self._clock = clock

    @property
    def sealing_public_key(self) -> str:
        """What clients seal secrets to, in hex."""
        return bytes(self._sealing_key.public_key).hex()

    async def rebuild(self, tenants: Iterable[str], used: UsedPermits) -> None:
        """Read every tenant's connections from event one, and the permits that were used lately."""
        now = self._clock().timestamp()
        for tenant in tenants:
            found: dict[str, Any] = {}
            async for envelope, event in self._events(tenant, user=None):
                if envelope.topic.startswith("broker.Connection."):
                    found[envelope.originator_id] = event.mutate(found.get(envelope.originator_id))
                elif event.expires_at + KEPT_SECONDS > now:
                    used.remember(event.jti, until=event.expires_at + KEPT_SECONDS)
            for connection in found.values():
                self._connections.put(connection)

    async def add(self, command: AddConnection, caller: Caller) -> KnownConnection:
        """Raises SealedSecretRefused, Denied."""
        secret = self._unseal(command.sealed_secret)
        action = "connection.share" if command.shared else "connection.add"
        decision = await self._decide(caller, action, "connection", command.name)
        owner = SYSTEM_USER if command.shared else caller.user
        told: dict[str, Any] = {
            "kind": command.kind,
            "hosts": command.hosts,
            "scopes": command.scopes,
            "decision": decision,
        }
        store = self._store_of(caller.tenant)
        if self._connections.owned(caller.tenant, owner, command.name) is None:
            connection = Connection.add(tenant=caller.tenant, owner=owner, name=command.name, at=self._clock(), **told)
        else:
            connection = await store.load(Connection, Connection.id_of(caller.tenant, owner, command.name))
            connection.replace(at=self._clock(), **told)
        await asyncio.to_thread(self._vault.put_secret, caller.tenant, owner, command.name, secret)
        await store.save(connection, user=owner)
        self._connections.put(connection)
        return self._owned(caller.tenant, owner, command.name)

    async def test(self, command: TestConnection, caller: Caller) -> ConnectionTested:
        """Raises NoConnection, ConnectionRefused when the secret is not accepted, Unavailable when nobody answers."""
        known, connection = await self._load(caller, command.name)
        secret = await asyncio.to_thread(self._vault.get_secret, caller.tenant, known.owner, known.name)
        status = await asyncio.to_thread(probe, known.hosts[0], command.path, secret.decode())
        accepted = status not in (401, 403)
        connection.tested(accepted=accepted, http_status=status, at=self._clock())
        await self._store_of(caller.tenant).save(connection, user=known.owner)
        if not accepted:
            raise ConnectionRefused(
                f"{known.hosts[0]} answers {status}: it does not accept the secret of {known.name!r}"
            )
        return ConnectionTested(name=known.name, accepted=True, http_status=status)

    async def revoke(self, name: str, caller: Caller) -> KnownConnection:
        """Raises NoConnection; a shared one needs the decision that sharing needs."""
        known, connection = await self._load(caller, name)
        if known.owner == SYSTEM_USER:
            await self._decide(caller, "connection.share", "connection", name)
        connection.revoke(at=self._clock())
        # In this order a crash between the two leaves a revoked connection with a secret that nothing can lease.
        await self._store_of(caller.tenant).save(connection, user=known.owner)
        self._connections.put(connection)
        await asyncio.to_thread(self._vault.delete_secret, caller.tenant, known.owner, name)
        return self._owned(caller.tenant, known.owner, name)

    def show(self, name: str, caller: Caller) -> KnownConnection:
        """Raises NoConnection."""
        known = self._connections.usable(caller.tenant, caller.user, name)
        if known is None:
            raise NoConnection(name=name)
        return known

    async def leases(self, caller: Caller) -> list[LeaseRow]:
        """One's own, newest first, of those whose connection and time tell their status."""
        now = self._clock().timestamp()
        rows: list[LeaseRow] = []
        async for envelope, event in self._events(caller.tenant, user=caller.user):
            if envelope.topic != Lease.Issued.TOPIC:
                continue
            known = self._connections.owned(caller.tenant, event.owner, event.connection)
            revoked = known is not None and not known.active
            status = "expired" if event.expires_at < now else "revoked" if revoked else "issued"
            rows.append(
                LeaseRow(
                    lease_id=envelope.originator_id,
                    connection=event.connection,
                    tool=event.tool,
                    run=event.run,
                    ordinal=event.ordinal,
                    status=status,
                    issued_at=envelope.recorded_at,
                    expires_at=datetime.fromtimestamp(event.expires_at, self._clock().tzinfo).isoformat(),
                )
            )
        return rows[::-1]

    async def sealed_user_key(self, service: str, caller: Caller) -> str:
        """The data key of the subject's user, sealed to that service's box key; raises Absent."""
        path = self._box_public_keys / f"{service}.pub"
        if not is_label(service) or not path.exists():
            raise Absent(f"there is no service {service!r} to seal a key to")
        key = await asyncio.to_thread(self._vault.user_key, caller.tenant, caller.user)
        return b64encode(SealedBox(PublicKey(bytes.fromhex(path.read_text().strip()))).encrypt(key)).decode()

    def _unseal(self, sealed: str) -> bytes:
        try:
            secret: bytes = SealedBox(self._sealing_key).decrypt(b64decode(sealed, validate=True))
            secret.decode("ascii")
        except (CryptoError, binascii.Error, ValueError):
            raise SealedSecretRefused(
                "the secret was not sealed to this broker's key, or is no ASCII text: ask `sealing-key` again"
            ) from None
        if not 0 < len(secret) <= MAX_SECRET_BYTES or not secret.decode("ascii").isprintable():
            raise SealedSecretRefused(f"a secret is 1 to {MAX_SECRET_BYTES} printable bytes")
        return secret

    async def _load(self, caller: Caller, name: str) -> tuple[KnownConnection, Connection]:
        known = self.show(name, caller)
        if not known.active:
            raise NoConnection(name=name)
        store = self._store_of(caller.tenant)
        return known, await store.load(Connection, Connection.id_of(caller.tenant, known.owner, name))

    def _owned(self, tenant: str, owner: str, name: str) -> KnownConnection:
        known = self._connections.owned(tenant, owner, name)
        if known is None:
            raise NoConnection(name=name)
        return known

    async def _events(self, tenant: str, *, user: str | None) -> Any:
        """Connections' and issued leases' events of a tenant, or of one user, decoded; what is erased is left out."""
        store = self._store_of(tenant)
        after = 0
        while page := await (store.read(after + 1, PAGE) if user is None else store.of_user(user, after, PAGE)):
            for envelope in page:
                if envelope.topic.startswith("broker.Connection.") or envelope.topic == Lease.Issued.TOPIC:
                    try:
                        yield envelope, await store.decode(envelope)
                    except Absent:
                        continue
            after = page[-1].notification_id
