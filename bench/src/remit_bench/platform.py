"""A platform of the benchmark's own, on a home of its own: real processes, started as `remit up` starts them.

`python -m remit_bench.platform HOME [SERVICE...]` serves until SIGTERM, without the services that are named: the driver
is then the agent runtime, with its key and its store.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from remit_contracts.errors import Unavailable
from remit_infra.home import Home
from remit_infra.services import installed_services
from remit_infra.supervisor import Supervisor

STARTS_WITHIN_SECONDS = 120.0
STOPS_WITHIN_SECONDS = 30.0
POLL_SECONDS = 0.01


class Platform:
    """A process that starts a platform, for a `with` block. `seconds_to_ready` is from its start to endpoints.json."""

    def __init__(self, home: Path, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.seconds_to_ready = 0.0
        self._command = [sys.executable, *command]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the supervisor: everything else runs below it."""
        if self._process is None:
            raise Unavailable("the platform was not started")
        return self._process.pid

    @property
    def url(self) -> str:
        """Where the bus listens."""
        endpoints: dict[str, Any] = Home(self.home).endpoints() or {}
        return str(endpoints["nats"])

    def __enter__(self) -> Self:
        self.home.parent.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        with (self.home.parent / "platform.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        try:
            while not (self.home / "endpoints.json").exists():
                if self._process.poll() is not None or time.perf_counter() - began > STARTS_WITHIN_SECONDS:
                    raise Unavailable(f"the benchmark's platform did not start: see {self.home.parent}/platform.log")
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.seconds_to_ready = time.perf_counter() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM and wait; SIGKILL to the supervisor, with which all die, when that takes too long."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOPS_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def as_installed(home: Path) -> Platform:
    """`remit up`, as anybody starts it; modules may be compiled, whatever this shell says about that."""
    platform = Platform(home, ["-m", "remit.cli", "up", "--home", str(home)])
    platform._environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return platform


def without_runtime(home: Path, *, engine: str) -> Platform:
    """All services but the agent runtime; `engine` is `embedded` or `opa`. Nothing is logged below a warning."""
    command = ["-m", "remit_bench.platform", str(home), "agent-runtime"]
    return Platform(home, command, {"REMIT_POLICY_ENGINE": engine, "REMIT_LOG_LEVEL": "warning"})


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM."""
    home, *left_out = arguments
    services = {name: run for name, run in installed_services().items() if name not in left_out}
    return Supervisor(Home.create(Path(home)), services=services).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
