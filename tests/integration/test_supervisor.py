"""`remit up` without the services: real engines, fake services, every way to begin and to end.

The platform under test runs in a process of its own: this file as a script.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remit_chassis.readiness import announce_contradicted, announce_failure, announce_ready, announce_waiting
from remit_contracts.errors import Refusal
from remit_infra.home import Home
from remit_infra.lock import down, status
from remit_infra.logfile import LIMIT_BYTES, old_log
from remit_infra.streams import connect_installer
from remit_infra.supervisor import Ports, Supervisor

PATIENCE_SECONDS = 40
LONGEST_SUBJECT = 3900
"""Bytes that the bus server takes, and repeats in its log when it refuses them: its lines hold 4 KB."""
TOLD = ("REMIT_HOME", "REMIT_NATS_URL", "REMIT_MONGO_URL")


# -- fake services, and the script -------------------------------------------------------------------------------------


def steady() -> None:
    """Ready at once; says what it was told; drains when asked to stop."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    print(json.dumps({name: os.environ.get(name) for name in TOLD}), flush=True)
    announce_ready()
    signal.sigwait(signals)
    print("drained", flush=True)


def leaning() -> None:
    """Takes the place of the agent runtime: drains for half a second, in which nobody else may end."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    announce_ready()
    signal.sigwait(signals)
    signal.sigtimedwait({signal.SIGUSR1}, 0.5)


def chatty() -> None:
    """Prints three times what a log may hold, then is as the steady one."""
    for _ in range(3 * LIMIT_BYTES // 1024):
        print("x" * 1023)
    steady()


def failing() -> None:
    announce_failure("the ledger's key does not fit")
    sys.exit(1)


def crashing() -> None:
    print("a line about why")
    sys.exit(3)


def silent() -> None:
    signal.pause()


def waiting() -> None:
    announce_waiting("bus: the bus is disconnected")
    announce_waiting("store: no space left on device", code="unavailable")
    signal.pause()


def tampered() -> None:
    announce_waiting("store: the store of platform/tampered is not used", code="tampered.store")
    signal.pause()


def ending_tampered() -> None:
    announce_failure("the ledger was altered")
    sys.exit(6)


def choosy() -> None:
    """Serves all tenants but two."""
    announce_contradicted("acme", "the stream holds another log")
    announce_contradicted("globex", "x" * 1000)
    steady()


def stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    announce_ready()
    while True:
        signal.pause()


def without_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def script(home: str, *options: str) -> int:
    """Run a supervisor over the fake services that are named; `seed`, `main`, `no-disk` and `port=N` are options."""
    every = (steady, chatty, failing, crashing, silent, stubborn, waiting, tampered, ending_tampered, choosy)
    fakes = {fake.__name__: fake for fake in every}
    services = {f"{name}-{number}": fakes[name] for number, name in enumerate(options) if name in fakes}
    services |= {name: leaning for name in options if name == "agent-runtime"}
    port = next((int(option[5:]) for option in options if option.startswith("port=")), None)
    opened = Home.create(Path(home))
    if "no-disk" in options:
        without_disk()

    def tell(name: str, state: str) -> None:
        print(name, state, flush=True)

    def warn(service: str, tenant: str, reason: str) -> None:
        print(service, "does not serve", tenant, reason, flush=True)

    def seed(endpoints: dict[str, Any]) -> None:
        print("seeding", opened.endpoints_file.exists(), endpoints["nats"], flush=True)

    def main(endpoints: dict[str, Any]) -> int:
        print("main", opened.endpoints_file.exists(), flush=True)
        return 7

    supervisor = Supervisor(
        opened, services=services, ports=Ports(nats=port), progress=tell, warn=warn, ready_seconds=5, stop_seconds=2
    )
    try:
        return supervisor.run(seed=seed if "seed" in options else None, main=main if "main" in options else None)
    except Refusal as refusal:
        print(refusal.reason, file=sys.stderr)
        return refusal.exit_code


# -- the test's side ---------------------------------------------------------------------------------------------------


class Platform:
    """One `up` in a session of its own."""

    def __init__(self, directory: Path) -> None:
        self.home = Home(directory)
        self.process: subprocess.Popen[str] | None = None

    def up(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, str(self.home.path), *options]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, start_new_session=True, **streams)
        return self.process

    def until_ready(self) -> dict[str, Any]:
        until(lambda: self.home.endpoints() is not None)
        return self.home.endpoints() or {}

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str, str]:
        assert self.process is not None
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, out, err

    def left(self) -> list[int]:
        """Processes of the session, engines' own groups included, that still run."""
        assert self.process is not None
        return [pid for pid, session in sessions() if session == self.process.pid]


def sessions() -> Iterator[tuple[int, int]]:
    """(pid, session) of every process that is no zombie."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                yield int(entry.name), int(fields[3])


def until(condition: Callable[[], bool]) -> None:
    """Look every 20 ms; fails when the condition never holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.02)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A platform whose processes are all ended, whatever the test did."""
    platform = Platform(tmp_path / "home")
    yield platform
    if platform.process:
        if platform.process.poll() is None:
            platform.process.kill()
            platform.process.communicate()
        until(lambda: platform.left() == [])


def test_all_is_told_once_all_is_ready(platform: Platform) -> None:
    platform.up("steady", "steady")
    endpoints = platform.until_ready()
    assert endpoints["nats"].startswith("nats://127.0.0.1:")
    assert endpoints["http"] is None
    assert {"nats", "mongo", "steady-0", "steady-1"} <= endpoints["pids"].keys()
    assert set(endpoints["pids"].values()) <= set(platform.left())
    assert platform.home.endpoints_file.stat().st_mode & 0o777 == 0o600
    told = json.loads((platform.home.logs / "steady-0.log").read_text().splitlines()[0])
    assert told["REMIT_HOME"] == str(platform.home.path)
    assert told["REMIT_NATS_URL"] == endpoints["nats"]
    assert told["REMIT_MONGO_URL"] == endpoints["mongo"]
    platform.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_services_then_stores_then_the_bus_and_leaves_nothing(platform: Platform, number: int) -> None:
    platform.up("steady")
    platform.until_ready()
    code, out, err = platform.end(number)
    assert (code, err) == (0, "")
    stopped = [line.split()[0] for line in out.splitlines() if line.endswith(" stopped")]
    assert (stopped[0], stopped[-1]) == ("steady-0", "nats")
    assert platform.left() == []
    assert platform.home.endpoints() is None


def test_ctrl_c_at_a_terminal_reaches_no_engine_before_the_services_have_drained(platform: Platform) -> None:
    process = platform.up("steady")
    platform.until_ready()
    os.killpg(process.pid, signal.SIGINT)
    assert platform.ended()[0] == 0
    assert "drained" in (platform.home.logs / "steady-0.log").read_text()
    bus_log = (platform.home.logs / "nats.log").read_text()
    assert 'Trapped "terminated" signal' in bus_log
    assert "interrupt" not in bus_log


@pytest.mark.parametrize("at_a_terminal", [False, True])
def test_the_agent_runtime_has_drained_before_any_other_service_is_told_to_end(
    platform: Platform, at_a_terminal: bool
) -> None:
    process = platform.up("steady", "agent-runtime", "steady")
    platform.until_ready()
    if at_a_terminal:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM)
    code, out, _ = platform.ended()
    ending = [line for line in out.splitlines() if line.endswith((" stopping", " stopped"))]
    assert ending[:2] == ["agent-runtime stopping", "agent-runtime stopped"]
    assert sorted(ending[2:4]) == ["steady-0 stopping", "steady-2 stopping"]
    assert (code, ending[-1]) == (0, "nats stopped")
    assert platform.left() == []


def test_a_second_up_is_refused_and_harms_nothing(platform: Platform) -> None:
    first = platform.up("steady")
    endpoints = platform.until_ready()
    second = Platform(platform.home.path)
    second.up("steady")
    assert second.ended() == (1, "", f"already running, pid {first.pid}\n")
    assert platform.home.endpoints() == endpoints
    platform.end()


def test_a_killed_service_comes_back_alone(platform: Platform) -> None:
    platform.up("steady", "steady")
    before = platform.until_ready()["pids"]
    os.kill(before["steady-0"], signal.SIGKILL)
    until(lambda: (platform.home.endpoints() or before)["pids"]["steady-0"] != before["steady-0"])
    after = (platform.home.endpoints() or {})["pids"]
    assert {name for name in before if before[name] != after[name]} == {"steady-0"}
    until(lambda: (platform.home.logs / "steady-0.log").read_text().count("REMIT_HOME") == 2)
    code, out, _ = platform.end()
    assert code == 0
    assert "steady-0 restarting\n" in out
    assert platform.left() == []


@pytest.mark.parametrize("engine", ["nats", "mongo"])
def test_a_killed_engine_comes_back_on_the_same_port(platform: Platform, engine: str) -> None:
    platform.up("steady")
    before = platform.until_ready()
    os.kill(before["pids"][engine], signal.SIGKILL)
    until(lambda: (platform.home.endpoints() or before)["pids"][engine] != before["pids"][engine])
    port = int(before[engine].rpartition(":")[2])
    until(lambda: answers(port))
    after = platform.home.endpoints() or {}
    assert after[engine] == before[engine]
    platform.end()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def was_cut(log: Path) -> bool:
    """Whether a log was begun anew and is short; where it was, no hole is left."""
    if not old_log(log).exists() or log.stat().st_size > LIMIT_BYTES:
        return False
    assert old_log(log).stat().st_size <= LIMIT_BYTES
    assert old_log(log).stat().st_mode & 0o777 == 0o600
    assert b"\0" not in log.read_bytes()
    return True


def test_a_part_that_prints_without_end_fills_no_disk(platform: Platform) -> None:
    platform.up("chatty")
    platform.until_ready()
    log = platform.home.logs / "chatty-0.log"
    until(lambda: was_cut(log))
    platform.end()
    assert was_cut(log)
    assert log.read_text().endswith("drained\n")


def test_whoever_is_refused_by_the_bus_for_ever_fills_no_disk(platform: Platform) -> None:
    platform.up("steady")
    url = platform.until_ready()["nats"]
    log = platform.home.logs / "nats.log"

    async def flood(last: str) -> None:
        nc = await connect_installer(platform.home, url)
        try:
            for number in range(3 * LIMIT_BYTES // LONGEST_SUBJECT):
                await nc.publish("x" * LONGEST_SUBJECT)
                if number % 500 == 0:
                    await nc.flush()
            await nc.publish(last)
            await nc.flush()
        finally:
            await nc.close()

    asyncio.run(flood("the.last.one"))
    until(lambda: was_cut(log))
    asyncio.run(flood("after.the.cut"))
    until(lambda: was_cut(log))
    assert platform.end()[0] == 0
    assert was_cut(log)
    assert 'Trapped "terminated" signal' in log.read_text()


def test_a_bus_server_that_does_not_start_is_named_with_its_last_words(platform: Platform) -> None:
    home = Home.create(platform.home.path)
    (home.bus / "js").rmdir()
    (home.bus / "js").write_bytes(b"")
    platform.up("steady")
    code, _, err = platform.ended()
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("nats exited with code 1: ")
    assert "storage directory" in err
    assert platform.left() == []


def test_no_child_outlives_a_supervisor_that_was_killed(platform: Platform) -> None:
    platform.up("steady", "stubborn")
    assert len(platform.until_ready()["pids"]) >= 4
    platform.end(signal.SIGKILL)
    until(lambda: platform.left() == [])
    assert status(platform.home)["running"] is False
    platform.up("steady")
    until(lambda: (status(platform.home)["endpoints"] or {}).get("pids", {}).get("steady-0") is not None)
    platform.end()


def test_the_read_models_start_although_a_killed_one_left_its_pid_file(platform: Platform) -> None:
    Home.create(platform.home.path)
    (platform.home.mongo / "pid").write_text(str(os.getpid()))
    platform.up("steady")
    assert "mongo" in platform.until_ready()["pids"]
    platform.end()


def test_a_service_that_ignores_the_request_to_end_is_killed(platform: Platform) -> None:
    platform.up("stubborn")
    platform.until_ready()
    assert platform.end()[0] == 0
    assert platform.left() == []


@pytest.mark.parametrize(
    ("service", "reason", "exit_code"),
    [
        ("failing", "the ledger's key does not fit", 1),
        ("crashing", "crashing-1 exited with code 3: a line about why", 1),
        ("silent", "not ready after 5 s: silent-1", 1),
        ("waiting", "not ready after 5 s: waiting-1 (store: no space left on device)", 1),
        ("tampered", "tampered-1: store: the store of platform/tampered is not used", 6),
        ("ending_tampered", "the ledger was altered", 6),
    ],
)
def test_a_service_that_does_not_become_ready_is_named_with_its_reason(
    platform: Platform, service: str, reason: str, exit_code: int
) -> None:
    platform.up("steady", service)
    code, _, err = platform.ended()
    assert code == exit_code
    assert err.startswith(reason)
    assert err.count("\n") == 1
    assert platform.left() == []
    assert platform.home.endpoints() is None


def test_a_tenant_that_a_service_does_not_serve_is_told_and_holds_nobody_up(platform: Platform) -> None:
    platform.up("steady", "choosy")
    platform.until_ready()
    code, out, _ = platform.end()
    assert code == 0
    told = [line for line in out.splitlines() if "does not serve" in line]
    assert told[0] == "choosy-1 does not serve acme the stream holds another log"
    assert told[1].startswith("choosy-1 does not serve globex xxx")
    assert len(told) == 2


def test_a_taken_port_is_refused_in_one_line(platform: Platform) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        platform.up("steady", f"port={port}")
        code, out, err = platform.ended()
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"port {port} for nats cannot be had (Address already in use)")


def test_a_disk_that_takes_nothing_is_refused_in_one_line(platform: Platform) -> None:
    platform.up("steady", "no-disk")
    code, _, err = platform.ended()
    assert (code, err.count("\n")) == (1, 1)
    assert "File too large" in err
    assert platform.left() == []


def test_an_interrupt_before_all_is_ready_ends_what_had_started(platform: Platform) -> None:
    platform.up("steady", "silent")
    until((platform.home.logs / "silent-1.log").exists)
    assert platform.end(signal.SIGINT)[0] == 130
    assert platform.left() == []


def test_seeding_comes_before_all_is_told_and_the_main_task_gives_the_exit_code(platform: Platform) -> None:
    platform.up("steady", "seed", "main")
    code, out, _ = platform.ended()
    assert code == 7
    assert "seeding False nats://" in out
    assert "main True" in out
    assert platform.left() == []


def test_down_ends_the_running_one_and_says_when_there_is_none(platform: Platform) -> None:
    platform.up("steady")
    platform.until_ready()
    seen = status(platform.home)
    assert seen["running"]
    assert seen["ready"]
    assert all(part["alive"] for part in seen["parts"].values())
    assert down(platform.home) is True
    assert platform.ended()[0] == 0
    assert status(platform.home) == {"running": False, "pid": None, "ready": False, "endpoints": None, "parts": {}}
    assert down(platform.home) is False


if __name__ == "__main__":
    sys.exit(script(*sys.argv[1:]))
