"""Users under load: each starts run after run through the client library, and asks again with the same key until answered.

Whatever is thrown at a user (a bus that is gone, a service that does not answer, a refusal for want of another service) is
noted and tried again; only what nobody could expect is kept as a fault.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
import yaml
from chaos.effect_desk import EffectDesk
from nacl.public import PublicKey, SealedBox
from nats.errors import Error as NatsError

from remit.client import ENDED, Client, PermissionViolation, connect
from remit_contracts.errors import Refusal

AGENT = "chaos"
TOOL = "weather-desk"
"""The default roles let an analyst call a tool of this name."""
USERS = ("acme/analyst", "acme/administrator", "globex/analyst", "globex/administrator")
SQL = {
    "acme": "SELECT carrier, count(*) AS flights FROM flights GROUP BY carrier LIMIT 3",
    "globex": "SELECT origin, max(temp) AS highest FROM weather GROUP BY origin LIMIT 3",
}
SOURCES = {"acme": "sources/acme/flights.sqlite", "globex": "sources/globex/weather.sqlite"}
CANCELLED_PART = 0.06
LOOK_SECONDS = 0.3
REQUEST_SECONDS = 3.0

PASSING = ("unavailable", "policy.", "overloaded", "auth.not_signed_in")
"""Refusals that another service's absence explains: policy denies what it cannot look up, and so does the bus itself."""

R = TypeVar("R")


@dataclass
class Asked:
    """A run as its user knows it: `run_id` is empty while nobody has answered."""

    who: str
    key: str
    attempts: int = 0
    run_id: str = ""
    seen: str = ""
    cancelled: bool = False


@dataclass
class History:
    """What all users asked and were answered."""

    asked: list[Asked] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> dict[str, Asked]:
        """Run id -> whose it is."""
        return {asked.run_id: asked for asked in self.asked if asked.run_id}


class User:
    """One lane of one user's work, on a connection of its own."""

    def __init__(self, url: str, who: str, lane: int, token: str, history: History, *, seed: str) -> None:
        self.who = who
        self._url = url
        self._token = token
        self._history = history
        self._name = f"{seed}-{who.replace('/', '-')}-{lane}"
        self._random = random.Random(self._name)
        self._client: Client | None = None
        self.resting = asyncio.Event()
        """Set: no new run is begun; a run that was asked for is still asked for until it is answered."""

    async def work(self) -> None:
        """Run after run until told to rest."""
        number = 0
        try:
            while not self.resting.is_set():
                number += 1
                await self._one_run(Asked(self.who, f"{self._name}-{number}"))
        except Refusal as refused:
            self._history.faults.append(f"{self.who} was refused for good: {refused.refusal_code} {refused.reason}")
        except Exception as fault:
            self._history.faults.append(f"the client of {self.who} raised {fault!r}")
            raise
        finally:
            await self._hang_up()

    async def _one_run(self, asked: Asked) -> None:
        self._history.asked.append(asked)
        prompt = self._prompt(asked.key)
        cancels = self._random.random() < CANCELLED_PART
        while not asked.run_id:
            asked.attempts += 1
            started = await self._try(lambda client: client.start(AGENT, prompt, idempotency_key=asked.key))
            asked.run_id = started or ""
        if cancels:
            await asyncio.sleep(self._random.uniform(0, 0.15))
            asked.cancelled = await self._try(lambda client: client.cancel(asked.run_id)) is not None
        while not self.resting.is_set():
            view = await self._try(lambda client: client.show(asked.run_id))
            if view and view["status"] in ENDED:
                asked.seen = view["status"]
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _try(self, question: Callable[[Client], Awaitable[R]]) -> R | None:
        """One attempt; None when it has to be made again."""
        try:
            if self._client is None:
                self._client = await connect(self._url, token=self._token, timeout_seconds=REQUEST_SECONDS).__aenter__()
            return await question(self._client)
        except Refusal as refused:
            self._history.refusals[refused.refusal_code] += 1
            if not refused.refusal_code.startswith(PASSING) or isinstance(refused, PermissionViolation):
                raise
        except (NatsError, OSError) as fault:
            self._history.refusals[type(fault).__name__] += 1
        if self._client and self._client.nats.is_closed:  # the library gave up: the next attempt is a new connection
            self._history.reconnects += 1
            await self._hang_up()
        await asyncio.sleep(self._random.uniform(0.05, 0.3))
        return None

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client:
            await client.__aexit__(None, None, None)

    def _prompt(self, key: str) -> str:
        """A script of one to three calls for the scripted model; the key makes every prompt another."""
        tenant = self.who.partition("/")[0]
        desk = {"call": {"tool": TOOL, "args": {"airport": "JFK", "note": key}}}
        sql = {"call": {"tool": "sql", "args": {"sql": SQL[tenant]}}}
        calls = self._random.choice([[desk], [desk, sql], [sql, desk], [desk, sql, desk], [desk, desk, sql]])
        return orjson.dumps({"script": [*calls, {"answer": f"done: {key}"}]}).decode()


class Load:
    """All users' lanes."""

    def __init__(self, url: str, tokens: dict[str, str], *, lanes: int, seed: str) -> None:
        self.history = History()
        self._users = [
            User(url, who, lane, token, self.history, seed=seed)
            for who, token in tokens.items()
            for lane in range(lanes)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(user.work(), name=user.who) for user in self._users]

    async def rest(self, within_seconds: float) -> None:
        """No new runs; returns when every run that was asked for has been answered. Raises TimeoutError."""
        for user in self._users:
            user.resting.set()
        try:
            async with asyncio.timeout(within_seconds):
                await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


def equip(home: Path, address: str) -> None:
    """Give both tenants the agent, and tools of which one acts on the desk at `address`."""
    for tenant, source in SOURCES.items():
        tools = [
            {"id": "sql", "kind": "sql", "source": source},
            {
                "id": TOOL,
                "kind": "http",
                "method": "POST",
                "url": f"http://{address}/act",
                "connection": TOOL,
                "scopes": ["act"],
                "parameters": {"airport": {"type": "string"}, "note": {"type": "string"}},
            },
        ]
        agent: dict[str, Any] = {
            "name": AGENT,
            "model": "scripted",
            "tools": ["sql", TOOL],
            "limits": {"model_calls": 20, "tool_calls": 20, "seconds": 60},
        }
        (home / "tools" / f"{tenant}.yaml").write_text(yaml.safe_dump({"tools": tools}))
        (home / "agents" / tenant / f"{AGENT}.yaml").write_text(yaml.safe_dump(agent))


async def connect_desk(url: str, who: str, token: str, desk: EffectDesk) -> None:
    """Give the user a connection of their own to the desk."""
    async with connect(url, token=token) as client:
        key = (await client.command("credential-broker", "sealing-key"))["public_key"]
        sealed = SealedBox(PublicKey(bytes.fromhex(key))).encrypt(desk.token_for(who).encode())
        await client.command(
            "credential-broker",
            "add-connection",
            {
                "name": TOOL,
                "kind": "bearer",
                "sealed_secret": base64.b64encode(sealed).decode(),
                "hosts": [desk.address],
                "scopes": ["act"],
            },
        )
