"""A whole platform of real processes, started as anybody starts it: `remit up --demo` on a home of its own.

`platform` is one per test module; `platform.client("acme/analyst")` is that user's own connection, `platform.cli(...)`
the command line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nats
import pytest
from nats.aio.client import Client as Nats

from remit.cli.installation import Installer
from remit.client import Client, connect
from remit_contracts import subjects
from remit_contracts.identity import Handle

STARTS_WITHIN_SECONDS = 60
STOPS_WITHIN_SECONDS = 40
USUAL_UMASK = 0o022
"""Whatever the tests run under: what is closed to others must be so by our doing."""


class Finished(NamedTuple):
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Platform:
    """A running platform. Only its own processes are ever signalled, by their ids."""

    def __init__(self, home: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.home = home
        self.arguments = arguments
        self.environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[str] | None = None
        self.seconds_to_ready = 0.0

    @property
    def endpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "endpoints.json").read_text())
        return found

    def start(self) -> None:
        """Start and wait until endpoints.json tells that all is ready."""
        began = time.monotonic()
        (self.home.parent / "up.log").touch()
        with (self.home.parent / "up.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "remit.cli", "up", *self.arguments, "--home", str(self.home)],
                stdout=log,
                stderr=log,
                text=True,
                env=self.environment,
                umask=USUAL_UMASK,
            )
        while not (self.home / "endpoints.json").exists():
            assert time.monotonic() - began < STARTS_WITHIN_SECONDS, f"not ready: {self.log}"
            try:
                code = self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"remit up exited with {code}: {self.log}")
        self.seconds_to_ready = time.monotonic() - began

    @property
    def log(self) -> str:
        return (self.home.parent / "up.log").read_text()[-3000:]

    def stop(self) -> None:
        """SIGTERM, and wait until all of it has ended."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOPS_WITHIN_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise AssertionError(f"remit up did not stop: {self.log}") from None

    def kill(self, name: str) -> int:
        """kill -9 one part; its process id."""
        pid = int(self.endpoints["pids"][name])
        os.kill(pid, signal.SIGKILL)
        return pid

    def cli(self, *arguments: str, timeout: float = 60) -> Finished:
        """Run `remit ...` on this home."""
        done = subprocess.run(  # noqa: PLW1510 (the exit code is what is tested)
            [sys.executable, "-m", "remit.cli", *arguments, "--home", str(self.home)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment,
            umask=USUAL_UMASK,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def token(self, who: str) -> str:
        """A session token of TENANT/HANDLE."""
        issued = self.cli("token", who)
        assert issued.code == 0, issued.err
        return issued.out.strip()

    @asynccontextmanager
    async def client(self, who: str, *, timeout_seconds: float = 10.0) -> AsyncIterator[Client]:
        """That user's own connection."""
        async with self.service_connection("installer") as nc:
            token = await Installer(nc).token(Handle.parse(who))
        async with connect(self.endpoints["nats"], token=token, timeout_seconds=timeout_seconds) as client:
            yield client

    @asynccontextmanager
    async def service_connection(self, name: str) -> AsyncIterator[Nats]:
        """A connection with a service's own key: for attacks by a service that was taken over."""

        async def quiet(_fault: Exception) -> None:
            return None

        nc = await nats.connect(
            self.endpoints["nats"],
            nkeys_seed=str(self.home / "secrets" / "nkeys" / f"{name}.nk"),
            inbox_prefix=subjects.service_inbox(name),
            allow_reconnect=False,
            error_cb=quiet,
        )
        try:
            yield nc
        finally:
            await nc.close()


@contextmanager
def running_platform(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[Platform]:
    """A platform in a folder of its own, stopped at the end."""
    platform = Platform(folder / "home", *arguments, environment=environment)
    try:
        platform.start()
        yield platform
    finally:
        platform.stop()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The demo's tenants, shared by the tests of one module."""
    with running_platform(tmp_path_factory.mktemp("platform"), "--demo") as started:
        yield started
