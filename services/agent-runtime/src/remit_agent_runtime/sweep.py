"""The sweep: whatever the store says is owed, and nobody works on, is put in line again.

At start it takes up what the last process left. Later it finds what the work queue lost, and what could not be
recorded for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from remit_agent_runtime.projections import OwedRuns

if TYPE_CHECKING:
    from remit_agent_runtime.queue import RunQueue
    from remit_chassis.eventstore.stores import EventStores

INTERVAL_SECONDS: Final = 10.0
QUIET_SECONDS: Final = 15.0
"""A run whose last event is younger may be on its way through the work queue, or in another process's hands."""


class Sweep:
    """Looks at every tenant's store."""

    def __init__(self, *, stores: Callable[[], EventStores], queue: RunQueue, clock: Callable[[], datetime]) -> None:
        self._stores = stores
        self._queue = queue
        self._clock = clock
        self._owed: dict[str, OwedRuns] = {}

    async def forever(self) -> None:
        """Once for all that is owed, then for what has been quiet; never returns."""
        everything = True
        while True:
            try:
                await self.once(quiet_seconds=0.0 if everything else QUIET_SECONDS)
                everything = False
            except Exception as fault:  # a store that cannot be read now is looked at again
                structlog.get_logger().warning("sweep.failed", error=str(fault)[:300])
            await asyncio.sleep(INTERVAL_SECONDS)

    async def once(self, *, quiet_seconds: float) -> int:
        """Put every owed run in line that is in none and whose last event is that old; returns how many.

        A run that only keeps its place is among them: its job may be lost.
        """
        found = 0
        stores = self._stores()
        for tenant in await asyncio.to_thread(stores.tenants):
            store = stores.of(tenant)
            if store.contradiction:  # no other tenant's runs wait for that
                continue
            owed = self._owed.get(tenant) or self._owed.setdefault(tenant, OwedRuns(store))
            await owed.catch_up()
            before = self._clock() - timedelta(seconds=quiet_seconds)
            for run_id, run in list(owed.runs.items()):
                if not self._queue.has_in_line(run_id) and datetime.fromisoformat(run.last_event_at) <= before:
                    self._queue.put(tenant, run.user, run_id)
                    found += 1
        if found:
            structlog.get_logger().info("sweep.found", runs=found)
        return found
