"""`remit up`: starts everything in order, keeps it running, and ends it in the reverse order.

Nothing here runs a thread or an event loop, so that forking is safe: services are imported once and forked, and what
needs a loop (making streams, seeding tenants) runs in a child of its own. One loop polls two kinds of descriptors: the
pipe that signals wake, and the children's announcements.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from remit_contracts.errors import EXIT_CODES
from remit_infra import engines
from remit_infra.files import for_owner_alone
from remit_infra.home import Home
from remit_infra.lock import holding
from remit_infra.process import Child, Part
from remit_infra.secrets import OPA_TOKEN
from remit_infra.services import StartRefused, installed_services
from remit_infra.signals import waking_signals
from remit_infra.streams import ensure_streams

Progress = Callable[[str, str], None]
"""Told (name, state): starting, ready, restarting, stopping or stopped."""
Warn = Callable[[str, str, str], None]
"""Told (service, tenant, reason) of a tenant that a service which is ready does not serve."""
Task = Callable[[dict[str, Any]], int | None]
"""Runs in a child with the endpoints; what it returns is its exit code."""

POLL_SECONDS: Final = 0.05
FIRST_DELAY_SECONDS: Final = 0.2
LONGEST_DELAY_SECONDS: Final = 10.0
STEADY_SECONDS: Final = 30.0
"""After that long, a failure counts as the first one again."""
TAMPERED: Final = "tampered.start"
"""Code of the StartRefused when what is stored was tampered with."""
LEANS_ON_OTHERS: Final = frozenset({"agent-runtime"})
"""Services with calls under way for which the others must still decide, lend and give keys: they end first."""


class _Interrupted(Exception):
    """A signal came while something was being waited for."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports; None is a free one. They stay the same over restarts."""

    nats: int | None = None
    mongo: int | None = None
    opa: int | None = None


@dataclass(slots=True)
class _Seat:
    """A part's place: its child now, and when there may be a next one."""

    part: Part
    child: Child
    started_at: float
    delay_seconds: float = FIRST_DELAY_SECONDS
    restart_at: float | None = None


class Supervisor:
    """All processes of one home."""

    def __init__(
        self,
        home: Home,
        *,
        services: Mapping[str, Callable[[], None]] | None = None,
        ports: Ports | None = None,
        progress: Progress = lambda name, state: None,
        warn: Warn = lambda service, tenant, reason: None,
        ready_seconds: float = 60.0,
        stop_seconds: float = 10.0,
    ) -> None:
        """`services`: name -> blocking main, the installed ones by default. `stop_seconds`: from SIGTERM to SIGKILL,
        of a service."""
        self.home = home
        self._services = services
        self._ports = ports or Ports()
        self._progress = progress
        self._warn = warn
        self._ready_seconds = ready_seconds
        self._stop_seconds = stop_seconds
        self._seats: dict[str, _Seat] = {}
        self._endpoints: dict[str, Any] = {}
        self._descriptors: list[int] = []
        self._tasks: list[Child] = []
        self._signals = 0
        self._unsaved = False
        self._serving = False

    def run(self, *, seed: Task | None = None, main: Task | None = None) -> int:
        """Block until SIGINT or SIGTERM, or until `main` ends; returns the exit code.

        `seed` runs once all is ready and before that is told in endpoints.json. Interrupted before that, or in `main`:
        130. Raises AlreadyRunning, EngineRefused or StartRefused, each with one line for people. No process is left.
        """
        try:
            with for_owner_alone(), holding(self.home) as lock, waking_signals(self._signalled) as woken:
                self._descriptors = [lock, *woken]
                self.home.remove_endpoints()
                try:
                    self._start()
                    return self._serve(seed, main)
                finally:
                    self._stop()
        except _Interrupted:
            return 130
        except OSError as fault:
            raise StartRefused(f"{fault.filename or self.home.path}: {fault.strerror}") from fault

    # -- starting --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        ports = {name: engines.claim_port(getattr(self._ports, name), engine=name) for name in Ports.__slots__}
        loopback = engines.LOOPBACK
        self._endpoints = {"nats": f"nats://{loopback}:{ports['nats']}", "http": None}
        self._endpoints["mongo"] = f"mongodb://{loopback}:{ports['mongo']}"
        started = [engines.bus_server(self.home, ports["nats"]), engines.read_models(self.home, ports["mongo"])]
        if program := engines.opa_program():
            self._endpoints["opa"] = f"http://{loopback}:{ports['opa']}"
            started.append(engines.opa(self.home, program, ports["opa"]))
        for part in started:
            self._seat(part)
        services = installed_services() if self._services is None else self._services  # while the engines boot
        self._until_ready([engines.BUS])
        self._do("streams", self._make_streams, logged=True)
        gc.collect()
        gc.freeze()  # what was imported stays on pages that the children share
        environment = self._environment()
        for name, service in services.items():
            self._seat(Part(name, run=service, environment=environment, announces=True, apart=True))
        self._until_ready(self._seats)

    def _environment(self) -> dict[str, str]:
        told = {"REMIT_HOME": str(self.home.path)}
        for name in ("nats", "mongo", "opa"):
            if name in self._endpoints:
                told[f"REMIT_{name.upper()}_URL"] = self._endpoints[name]
        if engines.RULES in self._endpoints:
            told["REMIT_OPA_TOKEN_FILE"] = str(self.home.secrets / OPA_TOKEN)
        return told

    def _make_streams(self, endpoints: dict[str, Any]) -> None:
        asyncio.run(ensure_streams(self.home, endpoints["nats"], self.home.tenants()))

    def _until_ready(self, names: Iterable[str]) -> None:
        deadline = time.monotonic() + self._ready_seconds
        waiting = set(names)
        while waiting:
            self._turn()
            if self._signals:
                raise _Interrupted
            for name in sorted(waiting):
                child = self._seats[name].child
                if child.state == "ready":
                    waiting.discard(name)
                elif child.state == "gone":
                    raise _refused(child)
                elif _is_tampered(child.waits_for[0]):  # time mends nothing there
                    raise StartRefused(f"{name}: {child.waits_for[1]}", code=TAMPERED)
            if waiting and time.monotonic() > deadline:
                named = ", ".join(f"{name}{self._waits_for(name)}" for name in sorted(waiting))
                raise StartRefused(f"not ready after {self._ready_seconds:.0f} s: {named} (see {self.home.logs})")

    def _waits_for(self, name: str) -> str:
        _, reason = self._seats[name].child.waits_for
        return f" ({reason})" if reason else ""

    # -- running ---------------------------------------------------------------------------------------------------

    def _serve(self, seed: Task | None, main: Task | None) -> int:
        if seed:
            self._do("seed", seed)
        self._save()
        self._serving = True
        self._progress("remit", "ready")
        if main:
            return self._until_ended(self._task("main", main))
        while not self._signals:
            self._turn()
            self._revive()
        return 0

    def _revive(self) -> None:
        now = time.monotonic()
        for name, seat in self._seats.items():
            if seat.child.state != "gone":
                continue
            if seat.restart_at is None:
                steady = now - seat.started_at > STEADY_SECONDS
                delay = FIRST_DELAY_SECONDS if steady else seat.delay_seconds
                seat.restart_at, seat.delay_seconds = now + delay, min(delay * 2, LONGEST_DELAY_SECONDS)
                self._progress(name, "restarting")
            elif now >= seat.restart_at:
                self._seats[name] = _Seat(seat.part, self._fork(seat.part), now, seat.delay_seconds)
                self._unsaved = True
        if self._unsaved:
            with suppress(OSError):  # a full disk must not end what still runs: tried again at the next turn
                self._save()

    def _save(self) -> None:
        pids = {name: seat.child.pid for name, seat in self._seats.items()}
        self.home.write_endpoints({**self._endpoints, "pids": pids})
        self._unsaved = False

    def _do(self, name: str, task: Task, *, logged: bool = False) -> None:
        """Run a task to its end; raises StartRefused when it fails."""
        child = self._task(name, task, logged=logged)
        if self._until_ended(child):
            raise _refused(child)

    def _task(self, name: str, task: Task, *, logged: bool = False) -> Child:
        endpoints = dict(self._endpoints)
        part = Part(name, run=lambda: _exit_with(task(endpoints)), environment=self._environment(), logged=logged)
        child = self._fork(part)
        self._tasks.append(child)
        return child

    def _until_ended(self, child: Child) -> int:
        while child.state != "gone":
            self._turn()
            if self._signals:
                raise _Interrupted
            if self._serving:
                self._revive()
        self._tasks.remove(child)
        return child.exit_code or 0

    # -- ending ----------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Services first, so that they can still write and publish what they have begun; the bus last.

        The agent runtime has `stop_seconds`, the other services have as much again, the rest together as well.
        """
        self.home.remove_endpoints()
        self._signals = 0  # from now on, a signal means: at once
        stores = (engines.READ_MODELS, engines.RULES)
        services = {name: seat.child for name, seat in self._seats.items() if name not in (engines.BUS, *stores)}
        whole, half = self._stop_seconds, self._stop_seconds / 2
        self._end([*self._tasks, *(child for name, child in services.items() if name in LEANS_ON_OTHERS)], whole)
        self._end(services.values(), whole)
        self._end([self._seats[name].child for name in stores if name in self._seats], half)
        self._end([self._seats[name].child for name in (engines.BUS,) if name in self._seats], half)

    def _end(self, children: Iterable[Child], within_seconds: float) -> None:
        left = [child for child in children if child.state != "gone"]
        for child in left:
            self._progress(child.part.name, "stopping")
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + within_seconds
        while left:
            self._turn()
            for child in [child for child in left if child.state == "gone"]:
                left.remove(child)
                self._progress(child.part.name, "stopped")
            if self._signals or time.monotonic() > deadline:
                for child in left:
                    child.signal(signal.SIGKILL)

    # -- the loop --------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Wait for a signal, an announcement or the next poll, then bring every child's state up to date."""
        children = [*self._tasks, *(seat.child for seat in self._seats.values())]
        poll = select.poll()
        for descriptor in (self._descriptors[1], *(child.announcements for child in children)):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        starting = any(child.state == "starting" for child in children)
        pending = any(seat.child.state == "gone" for seat in self._seats.values()) or self._unsaved
        poll.poll(POLL_SECONDS * 1000 if starting or pending else 1000)
        with suppress(BlockingIOError):
            while os.read(self._descriptors[1], 512):
                pass
        for child in children:
            before = child.state
            child.look()
            if child.state == "ready" != before:
                self._progress(child.part.name, "ready")
            while child.contradicted:
                self._warn(child.part.name, *child.contradicted.pop(0))

    def _seat(self, part: Part) -> None:
        self._seats[part.name] = _Seat(part, self._fork(part), time.monotonic())

    def _fork(self, part: Part) -> Child:
        self._progress(part.name, "starting")
        known = [*self._tasks, *(seat.child for seat in self._seats.values())]
        inherited = [*self._descriptors, *(child.announcements for child in known)]
        return Child(part, self.home.logs / f"{part.name}.log", inherited=inherited)

    def _signalled(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._signals += 1


def _refused(child: Child) -> StartRefused:
    """Why all is ended: that child has ended, and its exit code told whether something was tampered with."""
    tampered = child.exit_code == EXIT_CODES[TAMPERED.partition(".")[0]]
    return StartRefused(child.why_it_ended(), code=TAMPERED if tampered else None)


def _is_tampered(code: str) -> bool:
    return code.partition(".")[0] == TAMPERED.partition(".")[0]


def _exit_with(code: int | None) -> None:
    raise SystemExit(code or 0)
