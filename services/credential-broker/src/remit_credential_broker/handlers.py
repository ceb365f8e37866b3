"""Message in, one use case, answer out."""

from __future__ import annotations

from remit_chassis.keyring import UserKeys
from remit_chassis.service import Service
from remit_contracts import connections as messages
from remit_contracts.identity import Caller
from remit_contracts.leases import LeasesListed, ListLeases
from remit_contracts.messages import Nothing
from remit_contracts.user_keys import UserKey, UserKeySealed
from remit_credential_broker.application import Connections
from remit_credential_broker.history import LeaseHistory
from remit_credential_broker.leasing import Leasing
from remit_credential_broker.sealing import ServiceBoxes


def register(
    service: Service,
    *,
    connections: Connections,
    leasing: Leasing,
    history: LeaseHistory,
    user_keys: UserKeys,
    boxes: ServiceBoxes,
) -> None:
    """Add every verb of the credential broker."""
    service.hot_rpc("lease", leasing.lease)
    _register_connections(service, connections)

    @service.rpc("user-key", UserKey, from_log=False)  # keys are the vault's, and other services' logs open with them
    async def user_key(command: UserKey, caller: Caller) -> UserKeySealed:
        key = await user_keys.key(caller.tenant, caller.user)
        return UserKeySealed(sealed_key=boxes.seal(command.service, key))

    @service.command("list-leases", ListLeases)
    async def list_leases(command: ListLeases, caller: Caller) -> LeasesListed:
        return await history.newest(caller, command.limit)


def _register_connections(service: Service, connections: Connections) -> None:
    @service.command("sealing-key", Nothing)
    async def sealing_key(_: Nothing, caller: Caller) -> messages.SealingKey:
        return messages.SealingKey(public_key=connections.sealing_key)

    @service.command("add-connection", messages.AddConnection)
    async def add(command: messages.AddConnection, caller: Caller) -> messages.ConnectionShown:
        return await connections.add(command, caller)

    @service.command("list-connections", Nothing)
    async def list_connections(_: Nothing, caller: Caller) -> messages.ConnectionsListed:
        return connections.list(caller)

    @service.command("show-connection", messages.ShowConnection)
    async def show(command: messages.ShowConnection, caller: Caller) -> messages.ConnectionShown:
        return connections.show(command.name, caller)

    @service.command("test-connection", messages.TestConnection)
    async def test(command: messages.TestConnection, caller: Caller) -> messages.ConnectionTested:
        return await connections.test(command.name, command.path, caller)

    @service.command("revoke-connection", messages.RevokeConnection)
    async def revoke(command: messages.RevokeConnection, caller: Caller) -> messages.ConnectionShown:
        return await connections.revoke(command.name, caller)
