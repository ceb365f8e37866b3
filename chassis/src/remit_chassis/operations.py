"""What every service answers to operators and to the auditor: health, metrics, the head of its log, a range again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from remit_chassis.round_trip import taken_in
from remit_contracts.errors import Unavailable
from remit_contracts.identity import Caller
from remit_contracts.messages import Nothing
from remit_contracts.operations import Health, LogHead, MetricsShown, Republish, Republished

if TYPE_CHECKING:
    from remit_chassis.service import Service

PROBE_SECONDS = 2.0


def register(service: Service) -> None:
    """Add the verbs, and the two checks that hold for any service: a write to the store, an answer of the bus."""

    @service.rpc("health", Nothing, from_log=False)
    async def health(_: Nothing, caller: Caller) -> Health:
        return await service.health()

    @service.rpc("metrics", Nothing, from_log=False)
    async def metrics(_: Nothing, caller: Caller) -> MetricsShown:
        return MetricsShown(exposition=service.metrics.exposition().decode())

    @service.rpc("log-head", Nothing, from_log=False)  # whoever looks for contradictions must be told of this side
    async def log_head(_: Nothing, caller: Caller) -> LogHead:
        head = service.stores.of(caller.tenant).head()
        return LogHead(last_notification_id=head.notification_id, head_hash=head.hash.hex())

    @service.rpc("republish", Republish)
    async def republish(command: Republish, caller: Caller) -> Republished:
        return Republished(published=await service.stores.republish(caller.tenant, command.first, command.last))

    async def store_takes_writes() -> str:
        try:
            await asyncio.wait_for(service.stores.probe(), PROBE_SECONDS)
        except TimeoutError:
            raise Unavailable(f"no write was synced in {PROBE_SECONDS:g} s") from None
        return "a write was synced to disk"

    async def bus_answers() -> str:
        await taken_in(service.nc, within_seconds=PROBE_SECONDS)
        return "the bus answered"

    service.check("store", store_takes_writes)
    service.check("bus", bus_answers)
