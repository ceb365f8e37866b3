"""The credential broker: constructs everything, then runs until told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nacl.public import Box, PrivateKey, PublicKey

from remit_chassis.deciding import decide_with
from remit_chassis.keyring import VaultUserKeys
from remit_chassis.permits import PermitVerifier
from remit_chassis.service import Service
from remit_chassis.settings import read_hex_secret
from remit_chassis.vaultfile import VaultFile
from remit_contracts.identity import Caller
from remit_credential_broker import handlers
from remit_credential_broker.application import Broker
from remit_credential_broker.leasing import Leasing
from remit_credential_broker.projections import Connections
from remit_credential_broker.settings import BrokerSettings, master_key
from remit_credential_broker.used_permits import UsedPermits

if TYPE_CHECKING:
    from remit_chassis.eventstore.store import EventStore


def main() -> None:
    """Entry point `credential-broker` of the group `remit.services`."""
    build(BrokerSettings()).run()


def build(settings: BrokerSettings) -> Service:
    """The service, not yet started; raises ValueError for a key file that cannot be used."""
    vault = VaultFile(settings.vault_file, master_key(settings))
    service = Service("credential-broker", settings, user_keys=VaultUserKeys(vault))
    sealing_key = PrivateKey(read_hex_secret(settings.sealing_key_file))
    tool_host = PublicKey(read_hex_secret(settings.tool_host_public_key_file))
    connections = Connections()
    used = UsedPermits(started_at=service.clock().timestamp())

    def store_of(tenant: str) -> EventStore:
        return service.stores.of(tenant)  # there are none before the service has started

    async def decide(caller: Caller, action: str, resource_type: str, resource_id: str) -> dict[str, Any]:
        return await decide_with(service, caller, action, resource_type, resource_id)

    broker = Broker(
        vault=vault,
        connections=connections,
        sealing_key=sealing_key,
        box_public_keys=settings.box_public_key_dir,
        store_of=store_of,
        decide=decide,
        clock=service.clock,
    )
    leasing = Leasing(
        verifier=PermitVerifier(read_hex_secret(settings.permit_public_key_file)),
        used=used,
        connections=connections,
        secrets=vault,
        box=Box(sealing_key, tool_host),
        store_of=store_of,
    )
    handlers.register(service, broker, connections, leasing)

    async def begin() -> None:
        await broker.rebuild(service.stores.tenants(), used)

    service.on_start(begin)
    return service
