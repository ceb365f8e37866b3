"""How many messages a second each user says, from what the bus servers count, and who is refused for saying too many.

    Overloaded
    +-- TooManyMessages   overloaded.messages

Pure and in memory. A user is counted over all connections, those that ended meanwhile too, so that neither many of them
nor a quick change of them says more. A rate is over at least a second, by the clock of the server that counted.
Instants are seconds: of that clock in `Listed`, of a monotonic one elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from remit_auth.live_connections import Place
from remit_contracts.errors import Overloaded
from remit_contracts.identity import Caller

LEAST_SPAN_SECONDS = 1.0
FIRST_REFUSED_SECONDS = 5.0
LONGEST_REFUSED_SECONDS = 300.0
FORGOTTEN_SECONDS = 600.0
"""After so long without another flood the next one is the first again."""


class TooManyMessages(Overloaded):
    """A user who says more messages a second than one user may."""

    code = "overloaded.messages"

    def __init__(self, *, per_second: int, refused_seconds: float) -> None:
        super().__init__(
            f"more than {per_second} messages a second of this user: its connections are cut, and new ones are refused"
            f" for {refused_seconds:.0f} s",
            retry_after_seconds=round(refused_seconds, 1),
        )


class Counted(NamedTuple):
    """Whose connection it is, and how many messages it has said in all."""

    caller: Caller
    messages: int


@dataclass(frozen=True, slots=True)
class Listed:
    """What one bus server counted at one instant of its clock, for each connection of a user's."""

    at: float
    counted: Mapping[Place, Counted]


class Flood(NamedTuple):
    """A user over the bound: the connections to cut, from the busiest down, as each one's caller has to hear it."""

    tenant: str
    user: str
    messages_per_second: float
    connections: Mapping[Place, Caller]
    refusal: TooManyMessages


class _Said(NamedTuple):
    caller: Caller
    per_second: float
    place: Place | None
    """None for a connection that has ended."""


@dataclass(frozen=True, slots=True)
class _ShutOut:
    until: float
    seconds: float


class MessageRates:
    """Compares each look at the bus servers with the one before. `per_second` is what one user may say."""

    def __init__(self, *, per_second: int, monotonic: Callable[[], float]) -> None:
        self._per_second = per_second
        self._monotonic = monotonic
        self._before: dict[str, Listed] = {}
        self._ended: dict[Place, Counted] = {}
        self._shut_out: dict[tuple[str, str], _ShutOut] = {}

    def admit(self, caller: Caller) -> None:
        """Raise TooManyMessages for a user who is refused at present."""
        shut_out = self._shut_out.get((caller.tenant, caller.user))
        if shut_out and (left := shut_out.until - self._monotonic()) > 0:
            raise TooManyMessages(per_second=self._per_second, refused_seconds=left)

    def ended(self, place: Place, caller: Caller, messages: int) -> None:
        """A connection has ended that said so many messages in all: they count until the next look."""
        if place.server in self._before:
            self._ended[place] = Counted(caller, messages)

    def unknown(self) -> None:
        """Nobody counted meanwhile: the next look is compared with nothing. Who is refused stays refused."""
        self._before.clear()
        self._ended.clear()

    def looked(self, listed: Mapping[str, Listed]) -> list[Flood]:
        """Whom to cut off, by server's id what each of them lists; they are refused from now on."""
        self._forget()
        said: defaultdict[tuple[str, str], list[_Said]] = defaultdict(list)
        for server in self._before.keys() - listed.keys():
            del self._before[server]
        for server, now in listed.items():
            before = self._before.setdefault(server, now)
            span = now.at - before.at
            if span >= LEAST_SPAN_SECONDS:
                for each in self._since(server, before, now, span):
                    said[each.caller.tenant, each.caller.user].append(each)
            if span >= LEAST_SPAN_SECONDS or span < 0:  # below zero: the server's clock was set back
                self._before[server] = now
                self._ended = {place: counted for place, counted in self._ended.items() if place.server != server}
        return [flood for user, parts in said.items() if (flood := self._judged(user, parts))]

    def _since(self, server: str, before: Listed, now: Listed, span: float) -> Iterator[_Said]:
        def per_second(place: Place, messages: int) -> float:
            known = before.counted.get(place)
            return (messages - known.messages if known else messages) / span

        for place, counted in now.counted.items():
            if place not in self._ended:
                yield _Said(counted.caller, per_second(place, counted.messages), place)
        for place, counted in self._ended.items():
            if place.server == server:
                yield _Said(counted.caller, per_second(place, counted.messages), None)

    def _judged(self, user: tuple[str, str], parts: list[_Said]) -> Flood | None:
        in_all = left = sum(part.per_second for part in parts)
        if in_all <= self._per_second:
            return None
        cut: dict[Place, Caller] = {}
        for part in sorted(parts, key=lambda part: part.per_second, reverse=True):
            if left > self._per_second:
                left -= part.per_second
                if part.place:
                    cut[part.place] = part.caller
        seconds = self._shut(user)
        refusal = TooManyMessages(per_second=self._per_second, refused_seconds=seconds)
        return Flood(*user, in_all, cut, refusal)

    def _shut(self, user: tuple[str, str]) -> float:
        """For how many seconds: twice as long as the last time."""
        last = self._shut_out.get(user)
        seconds = min(last.seconds * 2, LONGEST_REFUSED_SECONDS) if last else FIRST_REFUSED_SECONDS
        self._shut_out[user] = _ShutOut(self._monotonic() + seconds, seconds)
        return seconds

    def _forget(self) -> None:
        now = self._monotonic()
        for user, shut_out in list(self._shut_out.items()):
            if shut_out.until + FORGOTTEN_SECONDS <= now:
                del self._shut_out[user]
