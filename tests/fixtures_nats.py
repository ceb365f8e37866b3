"""A real nats-server from the wheel, with the configuration and the keys that `remit up` would give it.

`nats_bus` is one server a test, on a free port, in a directory of its own, stopped by its process id.
`bus.connect_as("policy")` is a connection with that service's nkey, so with its permissions and nothing more.
"""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from remit_chassis.requester import Requester
from remit_contracts import subjects
from remit_infra.engines import free_port, nats_server_program
from remit_infra.home import Home
from remit_infra.nats import BusServer, Tls, render

STARTS_WITHIN_SECONDS = 20
ANYONE = "{ user: anyone, password: anyone }"


class Bus:
    """A running server, and the home directory whose keys it knows; with `tls` it takes no plain connection."""

    def __init__(self, home: Home, *, tls: Tls | None = None) -> None:
        self.home = home
        self.tls = tls
        self.port = free_port()
        self.violations: list[str] = []
        self.anyone = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self._process is not None, "the server was never started"
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.home.logs / "nats.log").read_text()

    def start(self) -> None:
        """Start, or start again on the same port and the same streams; returns once it accepts connections."""
        server = BusServer(listen=f"127.0.0.1:{self.port}", store_dir=self.home.bus / "js", tls=self.tls)
        configuration = self.home.bus / "nats.conf"
        text = render(server, self.home.public_nkeys())
        if self.anyone:
            text = text.replace(
                "APP { jetstream: enabled, users: [", f"APP {{ jetstream: enabled, users: [ {ANYONE}", 1
            )
            text = text.replace("auth_users: [", 'auth_users: [ "anyone", ', 1)
        configuration.write_text(text)
        with (self.home.logs / "nats.log").open("ab") as log:
            self._process = subprocess.Popen([nats_server_program(), "-c", str(configuration)], stdout=log, stderr=log)
        for _ in range(STARTS_WITHIN_SECONDS * 50):
            with socket.socket() as probe:
                probe.settimeout(0.5)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            try:
                code = self._process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"nats-server exited with {code}: {self.log[-2000:]}")
        raise AssertionError(f"nats-server did not start: {self.log[-2000:]}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop by process id; SIGKILL plays a crash."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(15)

    async def connect(self, **options: Any) -> Client:
        """A connection; the server's asynchronous errors gather in `violations`."""

        async def note(fault: Exception) -> None:
            self.violations.append(str(fault))

        if self.tls:
            options = {"tls": ssl.create_default_context(cafile=str(self.tls.authorities)), **options}
        nc = Client()
        try:
            await nc.connect(self.url, **{"error_cb": note, "allow_reconnect": False, **options})
        except BaseException:
            await nc.close()  # a refused connection would leave its socket behind
            raise
        return nc

    def add_anyone(self) -> None:
        """Start again with one more user, who may say anything: for tests of what stands behind the permissions."""
        self.stop()
        self.anyone = True
        self.start()

    async def connect_as_anyone(self) -> Client:
        """A connection of that user."""
        return await self.connect(user="anyone", password="anyone")

    async def connect_as(self, service: str, **options: Any) -> Client:
        """A connection as a service, `auth-callout`, `installer` or `sys`, with its own inbox."""
        return await self.connect(
            nkeys_seed_str=self.home.nkey_file(service).read_text(),
            inbox_prefix=subjects.service_inbox(service),
            name=service,
            **options,
        )

    @asynccontextmanager
    async def client(self, service: str) -> AsyncIterator[Client]:
        """`connect_as` that closes."""
        nc = await self.connect_as(service)
        try:
            yield nc
        finally:
            await nc.close()

    @asynccontextmanager
    async def asking_as(self, service: str) -> AsyncIterator[Requester]:
        """Asks other services as that one does: the server lets each answer in its own part of the inbox alone."""
        async with self.client(service) as nc:
            requester = Requester(nc, subjects.service_inbox(service))
            await requester.start()
            try:
                yield requester
            finally:
                await requester.stop()

    async def refused(self, nc: Client) -> list[str]:
        """What the server has refused since last asked, all that was sent before being seen by it."""
        await seen_by_server(nc)
        found, self.violations = self.violations, []
        return found


async def seen_by_server(nc: Client) -> None:
    """Return once the server has taken in all that was sent before, subscriptions included."""
    await nc.flush()
    await nc.flush()  # the ping of nats-py overtakes what is still buffered: only a second one comes after it


@contextmanager
def running_bus(directory: Path, *, tls: Tls | None = None) -> Iterator[Bus]:
    """A provisioned home in `directory` and its server."""
    bus = Bus(Home.create(directory), tls=tls)
    bus.start()
    try:
        yield bus
    finally:
        bus.stop()


@pytest.fixture
def nats_bus(tmp_path: Path) -> Iterator[Bus]:
    """A bus of this test's own."""
    with running_bus(tmp_path / "home") as bus:
        yield bus


@pytest.fixture(scope="module")
def shared_nats_bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    """A bus that the tests of one module share, for tests that only look."""
    with running_bus(tmp_path_factory.mktemp("bus") / "home") as bus:
        yield bus


async def connect_as(bus: Bus, service: str, **options: Any) -> Client:
    """The same as `bus.connect_as(service)`."""
    return await bus.connect_as(service, **options)
