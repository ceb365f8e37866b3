"""A stage: a running platform with users, tools and a desk on it, and what can be asked of it while parts of it are dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.effect_desk import EffectDesk
from chaos.load import USERS, Load, connect_desk, equip
from chaos.record import Record
from fixtures_platform import Platform
from nats.errors import Error as NatsError

from remit.cli.installation import Installer
from remit_audit.sweep import read_stream
from remit_chassis.streams import stream_info
from remit_contracts import subjects
from remit_contracts.errors import Refusal, Unavailable
from remit_contracts.events import Envelope
from remit_contracts.identity import Handle

TOOL_HOST = "tool-host"
LOOK_SECONDS = 0.05


@dataclass
class Stage:
    """A running platform, its users' tokens, its desk, and what can be read of it."""

    platform: Platform
    desk: EffectDesk
    record: Record
    tokens: dict[str, str]
    user_ids: dict[str, str]

    def load(self, *, lanes: int, seed: str) -> Load:
        """Users that are ready to start."""
        return Load(self.platform.endpoints["nats"], self.tokens, lanes=lanes, seed=seed)


@asynccontextmanager
async def staged(platform: Platform, desk: EffectDesk) -> AsyncIterator[Stage]:
    """Tools, agents, connections and tokens on a running platform."""
    equip(platform.home, desk.address)
    tokens: dict[str, str] = {}
    user_ids: dict[str, str] = {}
    url = platform.endpoints["nats"]
    async with platform.service_connection("installer") as nc:
        office = Installer(nc)
        for who in USERS:
            handle = Handle.parse(who)
            tokens[who] = await office.token(handle)
            user_ids[(await office.ask(handle.tenant, "auth", "resolve", {"handle": handle.handle}))["user"]] = who
            await connect_desk(url, who, tokens[who], desk)
    yield Stage(platform, desk, Record(platform.home), tokens, user_ids)


async def until(fact: Callable[[], bool], *, within_seconds: float, what: str) -> float:
    """Wait for a fact; seconds that it took. Fails, saying `what`, when it does not come true in time."""
    began = time.monotonic()
    while not await asyncio.to_thread(fact):
        assert time.monotonic() - began < within_seconds, f"not within {within_seconds:g} s: {what}"
        await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - began


async def is_ready(platform: Platform, services: tuple[str, ...]) -> bool:
    """Whether each service says so itself."""
    try:
        async with asyncio.timeout(3), platform.service_connection("installer") as nc:
            return all([(await Installer(nc).health(service))["ready"] for service in services])
    except (Refusal, NatsError, OSError, TimeoutError):
        return False


def ledger_reaches(record: Record, heads: dict[str, dict[str, int]]) -> bool:
    """Whether every tenant's ledger has each service's events up to those numbers."""
    for tenant, of_tenant in heads.items():
        found = record.ledger_heads(tenant)
        if any(found.get(service, 0) < head for service, head in of_tenant.items()):
            return False
    return True


def pid_of(platform: Platform, part: str) -> int | None:
    """As endpoints.json has it; the tool host is the runtime's child, and there is none while that starts it again."""
    pids = platform.endpoints["pids"]
    return tool_host_of(int(pids["agent-runtime"])) if part == TOOL_HOST else int(pids[part])


def tool_host_of(runtime: int) -> int | None:
    """The runtime's child that is a tool host, by /proc."""
    for process in Path("/proc").glob("[0-9]*"):
        parent = _read(process / "stat").rpartition(")")[2].split()[1:2]
        if parent == [str(runtime)] and "remit_agent_runtime.toolhost" in _read(process / "cmdline"):
            return int(process.name)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has ended
        return ""


def level(record: Record) -> bool:
    """Whether each ledger has all that is stored."""
    return ledger_reaches(record, {tenant: record.heads(tenant) for tenant in record.tenants()})


async def read_streams(platform: Platform, record: Record) -> dict[str, list[Envelope]]:
    """Every event in each tenant's stream, in its order; what is unreadable fails."""
    found: dict[str, list[Envelope]] = {}
    async with platform.service_connection("audit") as nc:
        for tenant in record.tenants():
            stream = subjects.events_stream(tenant)
            info = await stream_info(nc, stream)
            if info is None:
                raise Unavailable(f"there is no stream {stream}")
            found[tenant] = []
            async for read in read_stream(nc, stream, tenant, 1, info["state"]["last_seq"]):
                assert read.envelope is not None, f"{stream}, sequence {read.sequence}: {read.fault}"
                found[tenant].append(read.envelope)
    return found
