"""One user's flood of commands on a running platform: the others are answered, and whoever floods is cut off.

The flood is bytes on a socket, at a pace of its own, because a client library would slow down with its server.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fixtures_platform import Platform, running_platform

from remit.session import Session
from remit_contracts import subjects
from remit_contracts.errors import Refusal
from remit_contracts.identity import Caller

COMMANDS_PER_SECOND = 50_000
BATCHES_PER_SECOND = 50
LONGEST_SECONDS = 8.0
"""Of a flood that nobody ends."""
ANSWERED_WITHIN_SECONDS = 5.0
PAUSE_SECONDS = 0.05
GROWTH_BYTES = 64 * 1024 * 1024
"""Measured: 8 MiB; 160 MiB and more of a service that makes a task of each command, before the bus hangs up on it."""


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of this module's own: its users are refused for a while afterwards."""
    with running_platform(tmp_path_factory.mktemp("flooded"), "--demo") as started:
        yield started


def memory_bytes(pid: int) -> int:
    """Resident memory of a process at its highest."""
    told = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", told)[0]) * 1024


class Flooder:
    """A user's own connection, written by hand."""

    def __init__(self, caller: Caller, token: str) -> None:
        self.caller = caller
        self.sent = 0
        self.refused = 0
        self.told: list[bytes] = []
        self._token = token
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self, url: str) -> None:
        at = urlsplit(url)
        self._reader, self._writer = await asyncio.open_connection(at.hostname, at.port)
        await self._reader.readline()
        inbox = subjects.user_inbox(self.caller)
        live = subjects.live(self.caller.tenant, self.caller.user, "refusal")
        hello = {"verbose": False, "auth_token": self._token, "protocol": 1}
        self._writer.write(b"CONNECT %b\r\nSUB %b.> 1\r\n" % (json.dumps(hello).encode(), inbox.encode()))
        self._writer.write(b"SUB %b 2\r\nPING\r\n" % live.encode())
        if not (answer := await self._reader.readline()).startswith(b"PONG"):
            self._writer.close()
            raise ConnectionRefusedError(answer.decode())

    async def flood(self, service: str, verb: str) -> bool:
        """True when it was cut off, False when it was let go on."""
        subject = subjects.command(self.caller.tenant, self.caller.user, service, verb)
        batch = COMMANDS_PER_SECOND // BATCHES_PER_SECOND
        said = b"PUB %b %b.x 2\r\n{}\r\n" % (subject.encode(), subjects.user_inbox(self.caller).encode()) * batch
        listening = asyncio.ensure_future(self._listen())
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + LONGEST_SECONDS
        with suppress(OSError):
            while not listening.done() and loop.time() < ends_at:
                due = loop.time() + 1 / BATCHES_PER_SECOND
                self._writer.write(said)
                self.sent += batch
                await self._writer.drain()
                await asyncio.wait({listening}, timeout=max(due - loop.time(), 0))
        was_cut = listening.done()
        self._writer.close()
        await asyncio.wait({listening}, timeout=5)
        return was_cut

    async def _listen(self) -> None:
        with suppress(OSError):
            while line := await self._reader.readline():
                if line.startswith(b"MSG"):
                    body = (await self._reader.readexactly(int(line.split()[-1]) + 2)).strip()
                    self.refused += b"overloaded.requests" in body
                    if line.split()[2] == b"2":
                        self.told.append(body)
                elif line.startswith(b"PING"):
                    self._writer.write(b"PONG\r\n")


@asynccontextmanager
async def asking_quietly(platform: Platform, who: str, service: str, verb: str) -> AsyncIterator[list[str]]:
    """A user who asks one thing after the other meanwhile; what is given are the answers: `ok`, or what it was."""
    answers: list[str] = []
    async with platform.client(who, timeout_seconds=ANSWERED_WITHIN_SECONDS) as client:
        me = client.session.caller

        async def ask() -> None:
            while True:
                try:
                    await client.request(subjects.command(me.tenant, me.user, service, verb), b"{}")
                    answers.append("ok")
                except Refusal as refusal:
                    answers.append(f"{refusal.refusal_code}: {refusal.reason}")
                await asyncio.sleep(PAUSE_SECONDS)

        asking = asyncio.ensure_future(ask())
        try:
            yield answers
        finally:
            before = len(answers)
            async with asyncio.timeout(3 * ANSWERED_WITHIN_SECONDS):
                while len(answers) < before + 2:  # the question that was open, and one after the flood
                    await asyncio.sleep(PAUSE_SECONDS)
            asking.cancel()
            await asyncio.wait([asking])


@pytest.mark.parametrize(
    ("who", "service", "verb"), [("acme/reader", "agent-runtime", "list-runs"), ("acme/analyst", "auth", "whoami")]
)
async def test_a_flood_takes_no_service_from_another_user_and_is_cut_off(
    flooded: Platform, who: str, service: str, verb: str
) -> None:
    pids = flooded.endpoints["pids"]
    before = memory_bytes(pids[service])
    token = await asyncio.to_thread(flooded.token, who)
    flooder = Flooder(Session.of_token(token).caller, token)
    await flooder.connect(flooded.endpoints["nats"])
    async with asking_quietly(flooded, "globex/analyst", service, verb) as answers:
        was_cut = await flooder.flood(service, verb)
    bus_log = flooded.home / "logs" / "nats.log"
    assert "Slow Consumer" not in bus_log.read_text()
    assert set(answers) == {"ok"}
    assert memory_bytes(pids[service]) - before < GROWTH_BYTES
    assert flooder.refused > 0
    assert was_cut, f"{flooder.sent} commands were taken in"
    assert [json.loads(told)["error"]["code"] for told in flooder.told] == ["overloaded.messages"]
    with pytest.raises(ConnectionRefusedError, match="Authorization Violation"):
        await flooder.connect(flooded.endpoints["nats"])
    async with asyncio.timeout(10):  # the server writes its line when it has hung up
        while "Auth callout service returned an error: overloaded.messages" not in bus_log.read_text():
            await asyncio.sleep(PAUSE_SECONDS)
    assert "connections.flooding" in (flooded.home / "logs" / "auth.log").read_text()
    assert flooded.endpoints["pids"] == pids
