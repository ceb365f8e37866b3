"""The credential broker: constructs everything, then runs until told to stop."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from remit_chassis.keyring import VaultUserKeys
from remit_chassis.permits import PermitVerifier
from remit_chassis.service import Service
from remit_chassis.settings import read_hex_secret
from remit_contracts.subjects import SERVICES
from remit_credential_broker import handlers
from remit_credential_broker.application import Connections
from remit_credential_broker.decisions import deciding
from remit_credential_broker.history import LeaseHistory
from remit_credential_broker.lease_records import LeaseRecords
from remit_credential_broker.leasing import Leasing
from remit_credential_broker.live_leases import LiveLeases
from remit_credential_broker.probe import probe
from remit_credential_broker.projections import ConnectionBook
from remit_credential_broker.read_back import ReadBack
from remit_credential_broker.sealing import Inbound, ServiceBoxes, ToolHostBox
from remit_credential_broker.settings import BrokerSettings
from remit_credential_broker.used_permits import UsedPermits
from remit_credential_broker.vault import Secrets, master_key, open_vault

if TYPE_CHECKING:
    from remit_chassis.eventstore.store import EventStore


def main() -> None:
    """Entry point `credential-broker` of the group `remit.services`."""
    build(BrokerSettings()).run()


def build(settings: BrokerSettings) -> Service:
    """The service, not yet started; raises VaultRefused, or ValueError for an unreadable key file."""
    seed = read_hex_secret(settings.broker_key_file)
    permit_key = read_hex_secret(settings.public_dir / "permit.pub")
    tool_host_key = read_hex_secret(settings.public_dir / "tool-host.pub")
    boxes = ServiceBoxes({name: read_hex_secret(settings.public_dir / "box" / f"{name}.pub") for name in SERVICES})
    key = master_key(settings.master_key, settings.master_key_file, settings.vault_file)
    vault = open_vault(settings.vault_file, key)
    user_keys = VaultUserKeys(vault)
    service = Service("credential-broker", settings, user_keys=user_keys)
    secrets, book, live, used = Secrets(vault), ConnectionBook(), LiveLeases(time.monotonic), UsedPermits()

    def store_of(tenant: str) -> EventStore:
        return service.stores.of(tenant)  # there are none before the service has started

    lease_records = LeaseRecords(store_of=store_of, live=live, clock=service.clock)
    leasing = Leasing(
        user_keys=user_keys,
        book=book,
        secrets=secrets,
        verifier=PermitVerifier(permit_key),
        box=ToolHostBox(seed, tool_host_key),
        used=used,
        records=lease_records,
        ttl_seconds=settings.lease_seconds,
        clock=service.clock,
    )
    connections = Connections(
        store_of=store_of,
        book=book,
        secrets=secrets,
        inbound=Inbound(seed),
        decide=deciding(service),
        probe=partial(probe, private_hosts=settings.probe_private_hosts),
        revoke_leases=lease_records.revoke_on,
        clock=service.clock,
        new_id=uuid4,
    )
    reading = ReadBack(book=book, used=used, live=live, secrets=secrets, clock=service.clock, monotonic=time.monotonic)
    handlers.register(
        service,
        connections=connections,
        leasing=leasing,
        history=LeaseHistory(store_of, lease_records, live),
        user_keys=user_keys,
        boxes=boxes,
    )

    async def read_back() -> None:
        leasing.open(await reading.run(service.stores.tenants(), store_of))

    async def vault_opens() -> str:
        await secrets.probe()
        return "the vault is open"

    service.on_start(read_back)
    service.on_stop(lease_records.make_all_good)
    service.check("vault", vault_opens)
    return service


if __name__ == "__main__":
    main()
