"""Which users' connections live on the bus: what the callout granted, corrected by what the bus servers tell.

    Overloaded
    +-- TooManyConnections   overloaded.connections

Pure and in memory. Until the servers were asked once, and after their line was lost, nothing is known (`known`), and
nobody is granted a place: a cap that forgets is none. Instants are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from remit_contracts.errors import Overloaded, Unavailable
from remit_contracts.identity import Caller

GRACE_SECONDS = 5.0
"""The server gives up on a callout after two, so what no server lists after five never became a connection."""


class TooManyConnections(Overloaded):
    """A user at the cap."""

    code = "overloaded.connections"

    def __init__(self, *, cap: int) -> None:
        super().__init__(f"{cap} connections of this user are live, which is the cap: close one", code=self.code)


class Place(NamedTuple):
    """Where a connection is: the id of its bus server, and its number there, which that server gives once."""

    server: str
    number: int


@dataclass(slots=True)
class _Held:
    caller: Caller
    touched_at: float
    seen: bool
    """A server has told of it; before that it may be a grant that never became a connection."""


class LiveConnections:
    """Places by user. `cap` is how many of them one user may hold."""

    def __init__(self, *, cap: int, monotonic: Callable[[], float]) -> None:
        self.known = False
        self._cap = cap
        self._monotonic = monotonic
        self._held: dict[Place, _Held] = {}
        self._of_user: defaultdict[tuple[str, str], set[Place]] = defaultdict(set)
        self._left: set[Place] = set()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[tuple[Place, Caller]]:
        return iter([(place, held.caller) for place, held in self._held.items()])

    def __contains__(self, place: Place) -> bool:
        return place in self._held

    def grant(self, place: Place, caller: Caller) -> None:
        """Count a connection that is about to be; raises TooManyConnections, or Unavailable while nothing is known."""
        if not self.known:
            raise Unavailable("which connections live is not known yet: try again", retry_after_seconds=1.0)
        others = self._of_user.get((caller.tenant, caller.user), set()) - {place}
        if len(others) >= self._cap:
            raise TooManyConnections(cap=self._cap)
        self._hold(place, caller, seen=False)

    def opened(self, place: Place, caller: Caller) -> None:
        """A server tells that it let somebody in: also one that was granted by another process of this service."""
        self._hold(place, caller, seen=True)

    def closed(self, place: Place) -> None:
        """A connection has ended."""
        self._left.add(place)
        held = self._held.pop(place, None)
        if held:
            self._forget(place, held.caller)

    def lost(self) -> None:
        """Nobody tells what opens and closes: what is held may be wrong until the next survey."""
        self.known = False

    def begin_survey(self) -> float:
        """Before the servers are asked; what it returns goes to `surveyed`. One survey at a time."""
        self._left.clear()
        return self._monotonic()

    def surveyed(self, began_at: float, found: Mapping[Place, Caller]) -> None:
        """Take in what every server listed, asked after `began_at`.

        What ended meanwhile may still be listed, and what opened meanwhile may be missing; neither is believed.
        """
        for place, caller in found.items():
            if place not in self._left:
                self._hold(place, caller, seen=True)
        for place, held in list(self._held.items()):
            listed_before = began_at if held.seen else began_at - GRACE_SECONDS
            if place not in found and held.touched_at <= listed_before:
                self.closed(place)
        self.known = True

    def _hold(self, place: Place, caller: Caller, *, seen: bool) -> None:
        before = self._held.get(place)
        if before and before.caller != caller:
            self._forget(place, before.caller)
        self._held[place] = _Held(caller, self._monotonic(), seen or (before is not None and before.seen))
        self._of_user[caller.tenant, caller.user].add(place)

    def _forget(self, place: Place, caller: Caller) -> None:
        key = (caller.tenant, caller.user)
        self._of_user[key].discard(place)
        if not self._of_user[key]:
            del self._of_user[key]
