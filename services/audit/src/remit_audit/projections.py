"""Read models, projected from the ledger and rebuilt from its first entry."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from remit_audit.follower import Follower
from remit_audit.ledger_reader import LedgerReader
from remit_contracts.errors import Refusal

if TYPE_CHECKING:
    from remit_audit.mongo import TrailRepository

BATCH = 500
PAUSE_SECONDS = 2.0
CALM_SECONDS = 1.0
"""The ledger must have stood still for that long, since projecting costs as much as what it projects did; until it has
caught up, trails are read from the ledger itself."""
LATEST_SECONDS = 10.0
"""A ledger that never stands still is projected that often all the same."""


class TrailProjection:
    """Keeps a tenant's read model at its ledger's end. `position` is the last index there, -1 when unknown."""

    def __init__(self, repository: TrailRepository, reader: LedgerReader) -> None:
        self.position = -1
        self._repository = repository
        self._reader = reader
        self._tenant = reader.tenant

    async def follow(self, follower: Follower) -> None:
        """Project whenever the ledger grows; a database that is away is waited for."""
        while True:
            try:
                await self.catch_up()
            except Refusal as refusal:
                structlog.get_logger().warning("audit.projection_waits", tenant=self._tenant, reason=refusal.reason)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            async with follower.grown:
                await follower.grown.wait_for(lambda: follower.ledger.size > self.position + 1)
            await _calm(follower)

    async def catch_up(self) -> int:
        """Project what is new; returns the last index."""
        if self.position < 0:
            self.position = await self._repository.position(self._tenant)
            if self.position >= await asyncio.to_thread(self._reader.size):
                await self.rebuild()  # it was projected from another ledger than this one
        while entries := await asyncio.to_thread(self._reader.following, self.position, BATCH):
            await self._repository.put(self._tenant, entries)
            self.position = entries[-1].index
        return self.position

    async def rebuild(self) -> int:
        """Drop the read model and project it from event one; returns the last index."""
        await self._repository.drop(self._tenant)
        self.position = -1
        while entries := await asyncio.to_thread(self._reader.following, self.position, BATCH):
            await self._repository.put(self._tenant, entries)
            self.position = entries[-1].index
        return self.position


async def _calm(follower: Follower) -> None:
    """Return when the ledger stands still, or after LATEST_SECONDS."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LATEST_SECONDS):
            size = -1
            while size != follower.ledger.size:
                size = follower.ledger.size
                await asyncio.sleep(CALM_SECONDS)
