"""Cutting off whoever would not be let in again: deny first, then kick, and again until the connection is gone.

A kicked client comes back at once, so a connection is cut only after the directory refuses its user or session. What
is to be cut is asked of the directory each time and kept nowhere, so that a restart forgets none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

import structlog

from remit_auth.live_connections import LiveConnections, Place, TooManyConnections
from remit_auth.projections import Directory, NotAdmitted
from remit_auth.system_account import SystemAccount
from remit_contracts.errors import Refusal, Unavailable
from remit_contracts.identity import Caller

SURVEY_SECONDS = 30.0
AGAIN_SECONDS = 0.5
KICKS_AT_ONCE = 64
KNOWN_WITHIN_SECONDS = 1.5  # the server waits two for a callout

Tell = Callable[[Caller, Refusal], Awaitable[None]]
"""Says a refusal on the user's own live subject; returns once it is with the bus."""


class Cut(NamedTuple):
    """How many connections were cut, and how many are left to be cut: None when nobody knows which there are."""

    cut: int
    left: int | None


class Cutting:
    """Makes the live connections agree with the directory: at once when asked, and for ever in `run`."""

    def __init__(
        self,
        live: LiveConnections,
        directory: Directory,
        account: SystemAccount,
        tell: Tell,
        look_again: asyncio.Event,
    ) -> None:
        """`look_again` is set by whoever knows that the live connections may have changed unheard."""
        self._live = live
        self._directory = directory
        self._account = account
        self._tell = tell
        self._look_again = look_again
        self._agreed = asyncio.Event()
        self._full: dict[tuple[str, str], tuple[Caller, TooManyConnections]] = {}

    def full(self, caller: Caller, refusal: TooManyConnections) -> None:
        """A user was refused at the cap: the user is told where connected, and the count is checked."""
        self._full[caller.tenant, caller.user] = (caller, refusal)
        self._look_again.set()

    async def known(self) -> None:
        """Wait until the live connections are known, or so long that the server would hardly hear the answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(KNOWN_WITHIN_SECONDS):
                while not self._live.known:
                    self._agreed.clear()
                    await self._agreed.wait()

    async def check(self) -> str:
        """For readiness; raises Unavailable while nobody can be counted or cut off."""
        if not self._live.known:
            raise Unavailable("which connections live is not known: the bus servers were not asked yet, or are away")
        return f"{len(self._live)} connections of users are known"

    async def cut(self, tenant: str) -> Cut:
        """Cut off whoever of a tenant is refused as of now; what fails is tried again by `run` until it is done."""
        known = True
        try:
            await self._account.survey()
        except Unavailable as fault:
            known = False
            structlog.get_logger().warning("connections.unknown", reason=fault.reason)
        doomed = [each for each in self._doomed() if each[1].tenant == tenant]
        left = await self._kick(doomed)
        if left or not known:
            self._look_again.set()
        return Cut(len(doomed) - left, left if known else None)

    async def run(self) -> None:
        """Survey and cut: each half minute, twice a second while something is left to be cut, and when told to look."""
        wait_seconds = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._look_again.wait()
            self._look_again.clear()
            try:
                wait_seconds = AGAIN_SECONDS
                await self._account.survey()
                self._agreed.set()
                await self._tell_who_is_full()
                if await self._kick(self._doomed()) == 0:
                    wait_seconds = SURVEY_SECONDS
            except Unavailable as fault:
                structlog.get_logger().warning("connections.unknown", reason=fault.reason)
            except Exception:  # whatever it was, whoever was disabled must not stay connected because of it
                structlog.get_logger().exception("cutting.failed")
            await asyncio.sleep(AGAIN_SECONDS / 2)  # a flood of refusals must not become a flood of surveys

    def _doomed(self) -> list[tuple[Place, Caller, NotAdmitted]]:
        found = []
        for place, caller in self._live:
            try:
                self._directory.admit(caller)
            except NotAdmitted as refusal:
                found.append((place, caller, refusal))
        return found

    async def _kick(self, doomed: list[tuple[Place, Caller, NotAdmitted]]) -> int:
        """How many of them are left."""
        reasons = {caller: refusal for _, caller, refusal in doomed}
        for caller, refusal in reasons.items():
            told = NotAdmitted(f"{refusal.reason}: the connections of session {caller.session} are cut")
            await self.say(caller, told)
        return await self.kick(place for place, _, _ in doomed)

    async def kick(self, places: Iterable[Place]) -> int:
        """Cut these off, whoever they are; how many of them are left."""
        room = asyncio.Semaphore(KICKS_AT_ONCE)
        return sum(await asyncio.gather(*(self._kicked(place, room) for place in places)))

    async def _kicked(self, place: Place, room: asyncio.Semaphore) -> bool:
        """True when it is left."""
        async with room:
            try:
                await self._account.kick(place)
            except Unavailable as fault:
                structlog.get_logger().warning("connection.left", connection=place.number, reason=fault.reason)
                return place in self._live
        return False

    async def _tell_who_is_full(self) -> None:
        full, self._full = self._full, {}
        for caller, refusal in full.values():
            await self.say(caller, refusal)

    async def say(self, caller: Caller, refusal: Refusal) -> None:
        """Tell a user where connected; never raises."""
        try:
            await self._tell(caller, refusal)
        except Exception as fault:  # whoever cannot be told is cut off all the same
            structlog.get_logger().warning("connection.not_told", error=str(fault)[:300])
