"""Turns for users: deficit round robin (Shreedhar and Varghese, 1995) under a cap in flight, in all and per user.

Used twice: in front of the workers (a turn is a run) and in front of the tool gate (a turn is a tool call). Without
it a user with 64 loops made a quiet user wait 11 times longer; with 8 turns in flight, 7 of them for one user, 1.8
times.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from remit_contracts.errors import Overloaded

QUANTUM: Final = 1.0
"""What each visit adds to a user's deficit; a turn of cost 1 is served at every visit."""


@dataclass(slots=True, eq=False)
class _Line:
    """One user's waiting turns, oldest first, each with its cost."""

    waiting: deque[tuple[asyncio.Future[None], float]] = field(default_factory=deque)
    in_flight: int = 0
    deficit: float = 0.0
    in_ring: bool = False


class FairGate:
    """Grants turns. Full lines refuse at once with Overloaded; a waiting turn can be cancelled."""

    def __init__(
        self,
        *,
        in_flight: int,
        in_flight_per_user: int,
        waiting: int | None = None,
        waiting_per_user: int | None = None,
        retry_after_seconds: float = 1.0,
        what: str = "calls",
    ) -> None:
        self._cap = in_flight
        self._cap_per_user = in_flight_per_user
        self._bound = waiting
        self._bound_per_user = waiting_per_user
        self._retry_after_seconds = retry_after_seconds
        self._what = what
        self._lines: dict[Hashable, _Line] = {}
        self._ring: deque[Hashable] = deque()
        self._in_flight = 0
        self._waiting = 0

    @property
    def in_flight(self) -> int:
        """Turns that were granted and are not over."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """Turns that wait."""
        return self._waiting

    @asynccontextmanager
    async def turn(self, user: Hashable, *, cost: float = 1.0) -> AsyncIterator[None]:
        """Wait for `user`'s turn and hold it; raises Overloaded when that user's line, or the whole, is full."""
        await self.enter(user, cost=cost)
        try:
            yield
        finally:
            self.leave(user)

    async def enter(self, user: Hashable, *, cost: float = 1.0, again: bool = False) -> None:
        """`turn` for the hot path: every return must be matched by one `leave`.

        `again`: the turn was given up, and comes first in its user's line; a full line does not refuse it.
        """
        line = self._lines.get(user)
        if line is None:
            line = self._lines[user] = _Line()
        if self._in_flight < self._cap and not self._ring and line.in_flight < self._cap_per_user:
            self._grant(line)
            return
        if not again:
            self._refuse_if_full(user, line)
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (granted, cost)
        if again:
            line.waiting.appendleft(entry)
        else:
            line.waiting.append(entry)
        self._waiting += 1
        self._join_ring(user, line)
        self._pump()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.leave(user)  # the turn came and the task was cancelled before it could use it
            elif entry in line.waiting:  # else the pump has met it, cancelled, and thrown it away
                line.waiting.remove(entry)
                self._waiting -= 1
                self._forget(user, line)
            raise

    def leave(self, user: Hashable) -> None:
        """The turn is over."""
        line = self._lines[user]
        line.in_flight -= 1
        self._in_flight -= 1
        self._join_ring(user, line)
        self._pump()
        self._forget(user, line)

    def _refuse_if_full(self, user: Hashable, line: _Line) -> None:
        full = self._bound is not None and self._waiting >= self._bound
        if full or (self._bound_per_user is not None and len(line.waiting) >= self._bound_per_user):
            whose = f"{self._waiting} {self._what}" if full else f"{len(line.waiting)} of your {self._what}"
            self._forget(user, line)
            raise Overloaded(
                f"{whose} are waiting already: try again later", retry_after_seconds=self._retry_after_seconds
            )

    def _join_ring(self, user: Hashable, line: _Line) -> None:
        # A user at the cap is out of the ring, so that every visit of the pump can end in a grant.
        if line.waiting and not line.in_ring and line.in_flight < self._cap_per_user:
            line.in_ring = True
            self._ring.append(user)

    def _pump(self) -> None:
        while self._ring and self._in_flight < self._cap:
            user = self._ring.popleft()
            line = self._lines[user]
            line.in_ring = False
            line.deficit += QUANTUM
            while (
                line.waiting
                and line.waiting[0][1] <= line.deficit
                and line.in_flight < self._cap_per_user
                and self._in_flight < self._cap
            ):
                granted, cost = line.waiting.popleft()
                self._waiting -= 1
                if granted.done():  # cancelled
                    continue
                line.deficit -= cost
                self._grant(line)
                granted.set_result(None)
            if not line.waiting:
                line.deficit = 0.0
            self._join_ring(user, line)
            self._forget(user, line)

    def _grant(self, line: _Line) -> None:
        line.in_flight += 1
        self._in_flight += 1

    def _forget(self, user: Hashable, line: _Line) -> None:
        if not line.in_flight and not line.waiting:
            self._lines.pop(user, None)
            if line.in_ring:
                self._ring.remove(user)
                line.in_ring = False


class Turn:
    """A turn of `user` that can be given up for a while, so that it keeps nobody waiting, and taken again."""

    def __init__(self, gate: FairGate, user: Hashable) -> None:
        self._gate = gate
        self._user = user
        self._held = False
        self._was_held = False

    async def take(self) -> None:
        """Wait for it, unless it is held; raises Overloaded, the first time only."""
        if not self._held:
            await self._gate.enter(self._user, again=self._was_held)
            self._held = self._was_held = True

    def give_up(self) -> None:
        """The turn is over, or is to be taken again; nothing when it is not held."""
        if self._held:
            self._held = False
            self._gate.leave(self._user)
