"""Message in, one use case, answer out."""

from __future__ import annotations

from remit_chassis.service import Service
from remit_contracts.connections import (
    AddConnection,
    ConnectionRow,
    ConnectionsListed,
    ConnectionTested,
    ListConnections,
    NamedConnection,
    SealingKey,
    SealingKeyShown,
    TestConnection,
    UserKey,
    UserKeySealed,
)
from remit_contracts.identity import Caller
from remit_contracts.leases import LeasesListed, ListLeases
from remit_credential_broker.application import Broker
from remit_credential_broker.leasing import Leasing
from remit_credential_broker.projections import Connections


def register(service: Service, broker: Broker, connections: Connections, leasing: Leasing) -> None:
    """All verbs of the credential broker."""
    service.hot_rpc("lease", leasing.lease)

    @service.rpc("user-key", UserKey)
    async def user_key(command: UserKey, caller: Caller) -> UserKeySealed:
        return UserKeySealed(sealed_key=await broker.sealed_user_key(command.service, caller))

    @service.command("sealing-key", SealingKey)
    async def sealing_key(command: SealingKey, caller: Caller) -> SealingKeyShown:
        return SealingKeyShown(public_key=broker.sealing_public_key)

    @service.command("add-connection", AddConnection)
    async def add_connection(command: AddConnection, caller: Caller) -> ConnectionRow:
        return (await broker.add(command, caller)).row

    @service.command("list-connections", ListConnections)
    async def list_connections(command: ListConnections, caller: Caller) -> ConnectionsListed:
        return ConnectionsListed(connections=tuple(known.row for known in connections.of(caller.tenant, caller.user)))

    @service.command("show-connection", NamedConnection)
    async def show_connection(command: NamedConnection, caller: Caller) -> ConnectionRow:
        return broker.show(command.name, caller).row

    @service.command("test-connection", TestConnection)
    async def test_connection(command: TestConnection, caller: Caller) -> ConnectionTested:
        return await broker.test(command, caller)

    @service.command("revoke-connection", NamedConnection)
    async def revoke_connection(command: NamedConnection, caller: Caller) -> ConnectionRow:
        return (await broker.revoke(command.name, caller)).row

    @service.command("list-leases", ListLeases)
    async def list_leases(command: ListLeases, caller: Caller) -> LeasesListed:
        return LeasesListed(leases=tuple(await broker.leases(caller)))
