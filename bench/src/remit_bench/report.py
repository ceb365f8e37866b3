"""All rows, in one run. `run` is what `remit bench` calls, by the entry point `run` of the group `remit.bench`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from remit_bench import connecting, loads, saves, starting
from remit_bench.platform import Platform, without_runtime
from remit_bench.rows import Row, median
from remit_bench.seeding import seed
from remit_contracts.errors import MalformedCommand, Unavailable
from remit_infra.engines import opa_program

Progress = Callable[[str], None]

START: Final = ("up", "memory", "memory-rss")
STORE: Final = ("saves", "saves-library")
JOBS: Final = {
    "decide": ("decision",),
    "one": ("call",),
    "many": ("calls", "calls-failed", "calls-cpu"),
    "fair": ("fairness",),
}
"""Jobs of the driver, in the order in which they are done, and the keys of their rows."""
CONNECT: Final = ("connect",)
ENGINES: Final = ("embedded", "opa")
JUDGED_WITH: Final = "embedded"
"""Fairness is the gate's, so it is measured with one engine."""


def run(*, only: Sequence[str], seconds: float, progress: Progress) -> dict[str, Any]:
    """Measure the rows whose keys are in `only` (all when it is empty); each load lasts `seconds` a pass.

    Returns `{"floor_ms", "rows": [{"name", "value", "unit", "ratio", "goal", "met"}]}`; `floor_ms` is 0 when no
    row needed it. Raises MalformedCommand for a key that is none, Unavailable when a platform does not start.
    """
    wanted = _wanted(only)
    rows: list[Row] = []
    floors: list[float] = []
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as place:
        directory = Path(place)
        if wanted & set(START):
            progress("starting `remit up`, four times")
            rows += starting.measure(directory)
        if wanted & set(STORE):
            progress("saving events")
            rows += saves.measure(directory, seconds)
        for engine in _engines():
            jobs = [job for job in _jobs(engine) if wanted & {loads.key(key, engine) for key in JOBS[job]}]
            connects = engine == JUDGED_WITH and bool(wanted & set(CONNECT))
            if jobs or connects:
                found, floor = _loaded(directory / engine / "home", engine, jobs, connects, seconds, progress)
                rows += found
                floors += floor
            shutil.rmtree(directory / engine, ignore_errors=True)
    return {
        "floor_ms": median(floors) * 1e3 if floors else 0.0,
        "rows": [row.as_dict() for row in rows if row.key in wanted],
    }


def keys() -> list[str]:
    """Every key that this machine can measure."""
    loaded = [loads.key(key, engine) for engine in _engines() for job in _jobs(engine) for key in JOBS[job]]
    return [*START, *STORE, *loaded, *CONNECT]


def _jobs(engine: str) -> list[str]:
    return [job for job in JOBS if engine == JUDGED_WITH or job != "fair"]


def _engines() -> tuple[str, ...]:
    return ENGINES if opa_program() else ENGINES[:1]


def _wanted(only: Sequence[str]) -> set[str]:
    known = keys()
    asked = {name.partition(":")[0].strip() for name in only}
    if unknown := sorted(asked - set(known)):
        raise MalformedCommand(f"there is no row {', '.join(unknown)}; there are: {', '.join(known)}")
    return asked or set(known)


def _loaded(
    home: Path, engine: str, jobs: list[str], connects: bool, seconds: float, progress: Progress
) -> tuple[list[Row], list[float]]:
    """The rows of a platform under load, and F in seconds."""
    progress(f"starting a platform with the {engine} engine")
    rows: list[Row] = []
    with without_runtime(home, engine=engine) as platform:
        asyncio.run(seed(home, platform.url))
        if connects:
            progress("connecting")
            rows += asyncio.run(connecting.measure(home, platform.url))
        measured = _drive(platform, jobs, seconds, progress) if jobs else {}
    for job in jobs:
        rows += loads.of(job, measured[job], engine=engine)
    floor = loads.floor_seconds(measured)
    return rows, [] if floor is None else [floor]


def _drive(platform: Platform, jobs: list[str], seconds: float, progress: Progress) -> dict[str, loads.Passes]:
    """Run the driver in a process of its own, as the runtime is one."""
    progress(f"calling tools: {', '.join(jobs)}")
    log = platform.home.parent / "driver.log"
    with log.open("wb") as written:
        done = subprocess.run(
            [sys.executable, "-m", "remit_bench.driver", str(seconds), str(platform.pid), *jobs],
            stdout=subprocess.PIPE,
            stderr=written,
            env={**os.environ, "REMIT_HOME": str(platform.home), "REMIT_NATS_URL": platform.url},
            check=False,
        )
    if done.returncode:
        raise Unavailable(f"the driver of the load failed: {log.read_text()[-2000:]}")
    measured: dict[str, loads.Passes] = orjson.loads(done.stdout)
    return measured
