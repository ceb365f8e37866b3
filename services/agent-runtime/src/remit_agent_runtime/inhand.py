"""A run that this process works on: the warm aggregate, its store, and how far a replay has come.

Reloading the aggregate for every call cost 1.9 times the floor, so it stays in memory from `Started` to its end. When
a save fails it is stale: drop it and load it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from eventsourcing.domain import CanMutateAggregate

from remit_agent_runtime.domain import Run
from remit_agent_runtime.metering import CpuMetered

Announce = Callable[["RunInHand", Sequence[CanMutateAggregate[Any]]], Awaitable[None]]
"""Told of events once they are durable; must not raise."""


class Store(Protocol):
    """What is needed of `remit_chassis.eventstore`'s EventStore."""

    def save_later(self, aggregate: Run, *, user: str) -> asyncio.Future[int]:
        """Store the pending events; the future is done when they are durable."""


class RunInHand:
    """One run of `tenant`. Without `announce` nobody is told of its progress (the benchmark measures without)."""

    def __init__(
        self,
        *,
        tenant: str,
        run: Run,
        store: Store,
        clock: Callable[[], datetime],
        announce: Announce | None = None,
    ) -> None:
        self.tenant = tenant
        self.run = run
        self.user = run.user
        self.fair_key = (tenant, run.user)
        self.clock = clock
        self.model_calls_made = 0
        """Model calls of this attempt; while they are fewer than the journal holds, the journal answers."""
        self.tool_calls_made = 0
        self.metered: CpuMetered[str] | None = None
        self._store = store
        self._announce = announce
        self._saving: asyncio.Future[int] | None = None

    @property
    def cpu_seconds(self) -> float:
        """What the worker itself has used for this attempt."""
        return self.metered.cpu_seconds if self.metered else 0.0

    @property
    def stale(self) -> bool:
        """Whether a save failed, so that the aggregate holds what is not stored."""
        saving = self._saving
        return saving is not None and saving.done() and (saving.cancelled() or saving.exception() is not None)

    def save_later(self) -> Saving:
        """Begin to store what is pending; await the result's `done` before acting on it."""
        events = tuple(self.run.pending_events)
        self._saving = self._store.save_later(self.run, user=self.user)
        return Saving(self, self._saving, events)

    async def save(self) -> None:
        """Store what is pending; returns when it is durable. Raises Conflict, Unavailable, Overloaded or Absent."""
        await self.save_later().done()

    async def settle(self) -> None:
        """Wait for a save that was left under way, so that the next one follows it.

        Raises what the last save failed with: the versions that it did not store would be missing before the next.
        """
        if self._saving is not None:
            await asyncio.shield(self._saving)

    async def announce(self, events: Sequence[CanMutateAggregate[Any]]) -> None:
        """Tell whoever watches."""
        if self._announce is not None:
            await self._announce(self, events)


class Saving:
    """A save under way."""

    __slots__ = ("_events", "_future", "_hand")

    def __init__(self, hand: RunInHand, future: asyncio.Future[int], events: Sequence[CanMutateAggregate[Any]]) -> None:
        self._hand = hand
        self._future = future
        self._events = events

    async def done(self) -> None:
        """Return when it is durable. Shielded: whoever is cancelled here must not cancel the save."""
        await asyncio.shield(self._future)
        await self._hand.announce(self._events)
