"""What the command line says of shutting out: users, tenants and sessions, by the auth service on a real bus."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from os import kill

import orjson
import pytest
from fixtures_nats import Bus
from fixtures_platform import Finished
from integration.auth_platform import Platform

from remit_contracts import subjects

ACTS = [["users", "disable", "acme/ann"], ["tenants", "suspend", "acme"], ["sessions", "end", "acme", "SESSION"]]
shutting_out = pytest.mark.parametrize("act", ACTS, ids=lambda act: " ".join(act[:2]))


class Office(Platform):
    """Where the command line is used: a home whose bus and auth service run."""

    async def cli(self, *arguments: str) -> Finished:
        command = (sys.executable, "-m", "remit.cli", *arguments, "--home", str(self.bus.home.path))
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, said = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return Finished(process.returncode, out.decode(), " ".join(said.decode().split()))

    async def let_nobody_ask_who_is_connected(self) -> None:
        """The bus server takes that permission away from auth while it runs, and nothing else."""
        configuration = self.bus.home.bus / "nats.conf"
        text = configuration.read_text()
        asked = subjects.list_connections("*")
        assert asked in text
        configuration.write_text(text.replace(asked, f"{asked}.not"))
        kill(self.bus.pid, signal.SIGHUP)
        async with asyncio.timeout(20):
            while "Reloaded server configuration" not in self.bus.log:
                await asyncio.sleep(0.01)


@pytest.fixture
async def office(nats_bus: Bus) -> AsyncIterator[Office]:
    made = Office(nats_bus)
    (nats_bus.home.path / "endpoints.json").write_bytes(orjson.dumps({"nats": nats_bus.url}))
    await made.open()
    await made.seed()
    yield made
    await made.close()


@shutting_out
async def test_shutting_out_says_how_many_connections_it_cut_and_exits_0(office: Office, act: list[str]) -> None:
    issued = await office.ok("issue-token", {"handle": "ann"})
    ann = await office.client(issued["token"], issued["session"])
    told = await office.cli(*(issued["session"] if word == "SESSION" else word for word in act), "--output", "json")
    assert (told.code, told.err) == (0, "")
    assert (told.json["connections_cut"], told.json["connections_left"]) == (1, 0)
    await ann.close()


@shutting_out
async def test_what_is_done_with_connections_left_exits_1_and_says_both(office: Office, act: list[str]) -> None:
    issued = await office.ok("issue-token", {"handle": "ann"})
    await office.let_nobody_ask_who_is_connected()
    told = await office.cli(*(issued["session"] if word == "SESSION" else word for word in act), "--output", "json")
    assert told.code == 1, told.err
    assert (told.json["connections_cut"], told.json["connections_left"]) == (0, None)
    assert "which connections are live is not known" in told.err
    assert told.err.startswith((*act[2:], f"session {issued['session']}")), told.err


@shutting_out
async def test_what_was_not_done_because_auth_is_away_exits_5(office: Office, act: list[str]) -> None:
    await office.service.shut_down()
    told = await office.cli(*act, "--output", "json")
    assert (told.code, told.json["error"]["code"]) == (5, "unavailable")


async def test_a_resumed_tenant_has_its_sessions_again(office: Office) -> None:
    issued = await office.ok("issue-token", {"handle": "ann"})
    assert (await office.cli("tenants", "suspend", "acme")).code == 0
    assert (await office.cli("whoami", "--token", issued["token"])).code == 7
    assert (await office.cli("tenants", "resume", "acme")).code == 0
    assert (await office.cli("whoami", "--token", issued["token"])).code == 0


async def test_a_session_that_is_not_open_is_absent(office: Office) -> None:
    assert (await office.cli("sessions", "end", "acme", "s-nosuch")).code == 4
    assert (await office.cli("sessions", "end", "nowhere", "s-nosuch")).code == 4
    assert (await office.cli("sessions", "end", "acme", "No Session")).code == 2
