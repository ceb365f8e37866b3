"""The doorman before users' commands: how many of one user, and of all, are let in at the same time.

    Overloaded
    +-- TooManyRequests   overloaded.requests

A command is counted in the turn in which it was read, by the user whom its subject proves, before anything is made for
it: a task each, and the handlers behind it, cost a thousand times what reading a message costs, so that without a bound
one user's flood fills the memory and leaves the connection unread until the bus server cuts it, for everybody. What is
beyond a bound is refused by one task that says all refusals; what a user sends beyond those too is only counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from remit_chassis import guard
from remit_chassis.endpoints import where_to_refuse
from remit_contracts.errors import Overloaded, Refusal
from remit_contracts.subjects import ROOT

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from remit_chassis.endpoints import Endpoint, Publish
    from remit_chassis.telemetry import Metrics

Serve = Callable[["Endpoint", "Msg"], "asyncio.Task[Any]"]

RETRY_AFTER_SECONDS = 1.0
WINDOW_SECONDS = 1.0
UNANSWERED = "unanswered"
"""Outcome, among the metrics, of a command that got neither an answer nor a refusal."""


class TooManyRequests(Overloaded):
    """More commands at the same time than are let in."""

    code = "overloaded.requests"

    def __init__(self, whose: str, *, most: int) -> None:
        reason = f"{most} commands {whose} are being answered here, which is the most at a time: wait for answers"
        super().__init__(reason, retry_after_seconds=RETRY_AFTER_SECONDS)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Commands at the same time in one process of a service, and refusals a second that one user is told."""

    of_one_user: int = 64
    of_all: int = 1024
    refusals_per_second: int = 1000
    waiting_refusals: int = 4096


class Doorman:
    """Lets commands in, or refuses them, without waiting; `run` says the refusals.

    What it keeps of a user is gone when that user's last command is answered, and a second after the last refusal.
    """

    def __init__(self, serve: Serve, publish: Publish, metrics: Metrics, bounds: Bounds | None = None) -> None:
        """`serve` begins to answer a command; its task's end gives the place back."""
        self._bounds = bounds or Bounds()
        self._serve = serve
        self._publish = publish
        self._metrics = metrics
        self._in_flight: dict[str, int] = {}
        self._in_all = 0
        self._refused: Counter[str] = Counter()
        self._unanswered = 0
        self._window: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(self._bounds.waiting_refusals)
        self._user_is_full = _as_bytes(TooManyRequests("of yours", most=self._bounds.of_one_user))
        self._all_is_full = _as_bytes(TooManyRequests("of all users", most=self._bounds.of_all))

    def __len__(self) -> int:
        """Of how many users something is kept."""
        return len(self._in_flight.keys() | self._refused.keys())

    def door(self, endpoint: Endpoint) -> Callable[[Msg], None]:
        """What handles the messages of a subscription to `endpoint.subject`."""
        before, after = len(ROOT) + 1, len(endpoint.subject.removeprefix(f"{ROOT}.*.*"))
        refused = self._metrics.requests.labels(endpoint.kind, endpoint.verb, TooManyRequests.code)
        unanswered = self._metrics.requests.labels(endpoint.kind, endpoint.verb, UNANSWERED)

        def take(message: Msg) -> None:
            user = message.subject[before:-after]  # `tenant.user`: the server matched all the rest
            held = self._in_flight.get(user, 0)
            if held < self._bounds.of_one_user and self._in_all < self._bounds.of_all:
                self._let_in(endpoint, message, user, held)
            elif self._refuse(endpoint, message, user, self._all_is_full if self._is_full() else self._user_is_full):
                refused.inc()
            else:
                unanswered.inc()

        return take

    async def run(self) -> None:
        """Say what `door` refuses, until cancelled."""
        while True:
            subject, refusal = await self._waiting.get()
            try:
                await self._publish(subject, refusal)
            except Exception as fault:  # the bus is away, and so is whoever waits for it
                structlog.get_logger().warning("refusal.not_said", error=str(fault)[:300])

    def close(self) -> None:
        """Forget the refusals of this second."""
        if self._window:
            self._window.cancel()
            self._end_window()

    def _is_full(self) -> bool:
        return self._in_all >= self._bounds.of_all

    def _let_in(self, endpoint: Endpoint, message: Msg, user: str, held: int) -> None:
        self._in_flight[user] = held + 1
        self._in_all += 1
        self._serve(endpoint, message).add_done_callback(lambda _: self._gone(user))

    def _gone(self, user: str) -> None:
        self._in_all -= 1
        left = self._in_flight[user] - 1
        if left:
            self._in_flight[user] = left
        else:
            del self._in_flight[user]

    def _refuse(self, endpoint: Endpoint, message: Msg, user: str, refusal: bytes) -> bool:
        """True when the refusal will be said; it goes where the guard lets it go, and nowhere else."""
        if self._window is None:
            self._window = asyncio.get_running_loop().call_later(WINDOW_SECONDS, self._end_window)
        self._refused[user] += 1
        if self._refused[user] > self._bounds.refusals_per_second or self._waiting.full():
            self._unanswered += 1
            return False
        goes_to: str | None = message.reply
        try:
            guard.admit(message.subject, message.reply, len(message.data), max_bytes=endpoint.max_bytes)
        except Refusal as of_guard:
            goes_to = where_to_refuse(of_guard, message.subject, message.reply, endpoint.kind)
            refusal = _as_bytes(of_guard)
        if goes_to is None:
            self._unanswered += 1
            return False
        self._waiting.put_nowait((goes_to, refusal))
        return True

    def _end_window(self) -> None:
        """One line a second however many were refused, of whoever sent most of them."""
        (user, most), *_ = self._refused.most_common(1)
        tenant, _, name = user.partition(".")
        structlog.get_logger().warning(
            "requests.overloaded",
            tenant=tenant[:64],
            user=name[:64],
            refused=most,
            refused_of_all=self._refused.total(),
            unanswered=self._unanswered,
        )
        self._refused.clear()
        self._unanswered = 0
        self._window = None


def _as_bytes(refusal: Refusal) -> bytes:
    return orjson.dumps(refusal.as_dict())
