"""A tenant whose store is damaged keeps no other tenant's runs from being taken up."""

from __future__ import annotations

from pathlib import Path

from unit.agent_runtime.runtime import PROMPT, Runtime
from unit.agent_runtime.world import TENANT
from unit.chassis_eventstore.documents import open_store

from remit_agent_runtime.sweep import Sweep
from remit_chassis.eventstore.chain import Chain
from remit_chassis.eventstore.store import EventStore


class TwoTenants:
    """The stores of a service, one of them damaged and first in the order."""

    def __init__(self, damaged: EventStore, whole: EventStore) -> None:
        self._stores = {"a-damaged-one": damaged, TENANT: whole}

    def tenants(self) -> list[str]:
        return list(self._stores)

    def of(self, tenant: str) -> EventStore:
        return self._stores[tenant]


async def test_a_damaged_store_holds_up_no_other_tenants_runs(runtime: Runtime, tmp_path: Path) -> None:
    world = runtime.world
    await world.accept(PROMPT, number=77)
    file = tmp_path / "damaged.sqlite"
    file.write_bytes(b"no database" * 1000)
    async with open_store(file, chain=Chain("agent-runtime", "a-damaged-one")) as damaged:
        damaged.condemn("no database")
        stores = TwoTenants(damaged, world.store)
        sweep = Sweep(stores=lambda: stores, queue=runtime.queue, clock=world.clock)  # type: ignore[arg-type,return-value]
        assert await sweep.once(quiet_seconds=0.0) == 1
