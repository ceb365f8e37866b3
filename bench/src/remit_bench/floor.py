"""The floor: what the bus itself costs, on the platform's own server and with its services' keys and permissions.

F is the p50 of a request that is echoed plus the p50 of a JetStream publish, each at the same number in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from remit_bench.rows import percentile
from remit_chassis.streams import ask_jetstream
from remit_contracts import subjects
from remit_contracts.identity import SYSTEM_USER
from remit_infra.home import Home
from remit_infra.streams import connect_installer

TENANT = "floor"
STREAM = "FLOOR"
ECHO = subjects.rpc(TENANT, SYSTEM_USER, "auth", "echo")
EVENT = subjects.event(TENANT, SYSTEM_USER, "agent-runtime", "0" * 32)
PAYLOAD = b'{"x":1}'
WINDOW_SECONDS = 0.3


class Floor(NamedTuple):
    """`seconds` is F; `calls_a_second` is what echo and publish give one after the other."""

    seconds: float
    calls_a_second: float


class FloorMeter:
    """Measures on connections of its own. Use `measuring`."""

    def __init__(self, installer: Client, publisher: Client) -> None:
        self._installer = installer
        self._jetstream = publisher.jetstream()

    async def measure(self, in_flight: int, seconds: float = WINDOW_SECONDS) -> Floor:
        """Half of `seconds` for each of the two, with `in_flight` loops."""
        echo, echoes = await _loops(self._echo, in_flight, seconds / 2)
        publish, published = await _loops(self._publish, in_flight, seconds / 2)
        return Floor(echo + publish, 1 / (1 / echoes + 1 / published))

    async def _echo(self) -> None:
        await self._installer.request(ECHO, PAYLOAD, timeout=10)

    async def _publish(self) -> None:
        await self._jetstream.publish(EVENT, PAYLOAD, timeout=10)


@asynccontextmanager
async def measuring(home: Path, url: str) -> AsyncIterator[FloorMeter]:
    """Connect, with an echo and a stream of our own that no service follows; the stream is deleted at the end."""
    installed = Home(home)
    installer = await connect_installer(installed, url)
    responder = await _connect(installed, url, "auth")
    publisher = await _connect(installed, url, "agent-runtime")
    try:
        await responder.subscribe(ECHO, cb=_answer)
        await responder.flush()
        stream = {"name": STREAM, "subjects": [subjects.events_of_tenant(TENANT)], "storage": "file"}
        answer = await ask_jetstream(installer, f"STREAM.CREATE.{STREAM}", stream)
        if "error" in answer:
            raise Error(f"the floor's stream cannot be made: {answer['error']}")
        yield FloorMeter(installer, publisher)
        await ask_jetstream(installer, f"STREAM.DELETE.{STREAM}", {})
    finally:
        for client in (installer, responder, publisher):
            await client.close()


async def _answer(message: Msg) -> None:
    await message.respond(message.data)


async def _connect(home: Home, url: str, service: str) -> Client:
    client = Client()
    await client.connect(
        url,
        nkeys_seed_str=home.nkey_file(service).read_text(),
        inbox_prefix=f"{subjects.service_inbox(service)}.floor",
        allow_reconnect=False,
    )
    return client


async def _loops(step: Callable[[], Awaitable[None]], in_flight: int, seconds: float) -> tuple[float, float]:
    """p50 in seconds, and steps a second."""
    samples: list[float] = []
    began = time.perf_counter()

    async def loop() -> None:
        while (at := time.perf_counter()) < began + seconds:
            await step()
            samples.append(time.perf_counter() - at)

    await asyncio.gather(*(loop() for _ in range(in_flight)))
    return percentile(samples, 0.5), len(samples) / (time.perf_counter() - began)
