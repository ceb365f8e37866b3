"""A campaign: a whole platform under load, and kill -9 of its parts at moments that a seed draws.

A kill counts as a hit when the stores, looked at right after it, have runs that were accepted and not ended. Recovery is
measured from the kill until the part is there again and says that it is ready, a run that was accepted after the kill has
completed, and the ledger has what was stored before the kill.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos import checks
from chaos.effect_desk import EffectDesk
from chaos.load import History
from chaos.stage import (
    LOOK_SECONDS,
    TOOL_HOST,
    Stage,
    is_ready,
    ledger_reaches,
    level,
    pid_of,
    read_streams,
    staged,
    until,
)
from fixtures_platform import Platform

from remit_contracts.events import Envelope
from remit_contracts.subjects import SERVICES

BUS = "nats"
PARTS = (*SERVICES, BUS)
ENGINES = {"mongo": "audit", "opa": "policy", TOOL_HOST: "agent-runtime"}
"""Processes of which a service makes use: its health tells whether they are back. `opa` runs where there is one."""
RECOVERS_WITHIN_SECONDS = 45.0
"""The stated bound: 10 s of the supervisor's longest back-off and 10 s of the tool gate's patience are in it, and a machine
whose two cores do other work as well."""
ENDS_WITHIN_SECONDS = 90.0
TOGETHER = 0.25
"""Part of the kills that follow the one before at once, while that part is still away."""

AMID_CALL = 0.5
"""Part of the kills that wait for a tool call to be open, and come at once then; the others come whenever they come."""


@dataclass
class Kill:
    """One kill; seconds count from the campaign's start."""

    part: str
    at_seconds: float
    runs_in_flight: int
    calls_in_flight: int
    recovered_seconds: float = 0.0


@dataclass
class Campaign:
    """What happened. `faults` is what the checks found, and what no user should have been answered."""

    seed: str
    kills: list[Kill] = field(default_factory=list)
    history: History = field(default_factory=History)
    runs: checks.Runs = field(default_factory=checks.Runs)
    effects: int = 0
    witnessed: int = 0
    """Effects whose authorisation the desk read in the store as they came."""
    unknown_effects: int = 0
    """Calls whose outcome is recorded as unknown and that the desk did."""
    events: int = 0
    settled_seconds: float = 0.0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def report(self) -> str:
        """For people."""
        ends = Counter(end for found in self.runs.ends.values() for end in found)
        outcomes = Counter(outcome for call in self.runs.calls.values() for outcome in call.outcomes)
        denied = sum(call.denied for call in self.runs.calls.values())
        why = Counter(call.error for call in self.runs.calls.values() if call.error)
        retried = sum(asked.attempts > 1 for asked in self.history.asked)
        lines = [
            f"seed {self.seed}: {len(self.kills)} kills in {self.seconds:.0f} s, "
            f"{sum(kill.runs_in_flight > 0 for kill in self.kills)} of them with runs in flight",
            f"{'part':<20}{'kills':>6}{'hits':>6}{'runs in flight':>16}{'open calls':>12}{'recovered, s: median':>22}{'max':>7}",
        ]
        for part in (*PARTS, *ENGINES):
            kills = [kill for kill in self.kills if kill.part == part]
            if kills:
                took = [kill.recovered_seconds for kill in kills]
                lines.append(
                    f"{part:<20}{len(kills):>6}{sum(kill.runs_in_flight > 0 for kill in kills):>6}"
                    f"{sum(kill.runs_in_flight for kill in kills):>16}{sum(kill.calls_in_flight for kill in kills):>12}"
                    f"{statistics.median(took):>22.1f}{max(took):>7.1f}"
                )
        lines += [
            f"runs accepted {len(self.runs.accepted)} ({retried} asked for more than once): {_told(ends)}",
            f"why runs failed or were cancelled: {_told(self.runs.errors)}",
            f"tool calls {len(self.runs.calls)}: {_told(outcomes)}, denied {denied}; why they failed: {_told(why)}",
            f"effects in the desk's ledger {self.effects}, {self.witnessed} of them with their "
            f"authorisation in the store on arrival; of the calls with an unknown outcome {self.unknown_effects} are among them",
            f"events {self.events}; all runs ended and all copies level {self.settled_seconds:.1f} s after the load",
            f"refusals that users met: {_told(self.history.refusals)}; new connections {self.history.reconnects}",
            f"faults: {len(self.faults)}",
            *self.faults[:40],
        ]
        return "\n".join(lines)


def _told(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.most_common()) or "none"


def schedule(drawn: random.Random, parts: Sequence[str], kills: int) -> Iterator[str]:
    """Every part once in each round, in an order that is drawn."""
    while True:
        for part in drawn.sample(parts, len(parts)):
            if kills <= 0:
                return
            kills -= 1
            yield part


async def kill_one(stage: Stage, part: str, began: float, *, amid_call: bool) -> tuple[Kill, asyncio.Task[None]]:
    """Kill it, look at what that hit, and begin to measure its recovery."""
    while (before := pid_of(stage.platform, part)) is None:
        await asyncio.sleep(LOOK_SECONDS)
    heads = {tenant: await asyncio.to_thread(stage.record.heads, tenant) for tenant in stage.record.tenants()}
    aim = stage.record.open_calls if amid_call else stage.record.open_runs
    await until(lambda: bool(aim()), within_seconds=30, what="something in flight to hit")
    killed_at = time.monotonic()
    os.kill(before, signal.SIGKILL)
    open_runs, open_calls = await asyncio.to_thread(lambda: (stage.record.open_runs(), stage.record.open_calls()))
    kill = Kill(part, killed_at - began, len(open_runs), open_calls)
    return kill, asyncio.create_task(_recover(stage, kill, before, heads, killed_at))


async def _recover(stage: Stage, kill: Kill, before: int, heads: dict[str, dict[str, int]], killed_at: float) -> None:
    async with asyncio.timeout(RECOVERS_WITHIN_SECONDS):
        while pid_of(stage.platform, kill.part) in (before, None):
            await asyncio.sleep(LOOK_SECONDS)
        needed = SERVICES if kill.part == BUS else (ENGINES.get(kill.part, kill.part),)
        while not await is_ready(stage.platform, needed):
            await asyncio.sleep(LOOK_SECONDS)
        for tenant, of_tenant in heads.items():
            while not await asyncio.to_thread(stage.record.completed_since, tenant, of_tenant["agent-runtime"]):
                await asyncio.sleep(LOOK_SECONDS)
        while not await asyncio.to_thread(ledger_reaches, stage.record, heads):
            await asyncio.sleep(LOOK_SECONDS)
    kill.recovered_seconds = time.monotonic() - killed_at


async def run_campaign(
    platform: Platform,
    folder: Path,
    *,
    seed: str,
    kills: int,
    lanes: int,
    parts: Sequence[str] = PARTS,
    together: float = TOGETHER,
) -> Campaign:
    """Run it on a started platform, which is stopped at its end, and check everything."""
    campaign = Campaign(seed)
    drawn = random.Random(seed)
    began = time.monotonic()
    with EffectDesk(platform.home, folder / "effects.jsonl", seed=seed) as desk:
        async with staged(platform, desk) as stage:
            load = stage.load(lanes=lanes, seed=seed)
            campaign.history = load.history
            load.start()
            recovering: dict[str, asyncio.Task[None]] = {}
            try:
                for part in schedule(drawn, parts, kills):
                    await asyncio.sleep(drawn.uniform(0.1, 1.2))  # a moment that nobody chose
                    if drawn.random() >= together or part in recovering:
                        await _recovered(recovering)
                    kill, recovering[part] = await kill_one(stage, part, began, amid_call=drawn.random() < AMID_CALL)
                    campaign.kills.append(kill)
                await _recovered(recovering)
            finally:
                for task in recovering.values():
                    task.cancel()
                await load.rest(ENDS_WITHIN_SECONDS)
            streams = await _settle(stage, campaign)
            online = await asyncio.to_thread(platform.cli, "audit", "check", "--output", "json", timeout=180)
            await asyncio.to_thread(platform.stop)
            campaign.seconds = time.monotonic() - began
            examine(stage, campaign, streams)
            for name, told in (
                ("audit check", online),
                ("audit check --offline", platform.cli("audit", "check", "--offline", "--output", "json", timeout=180)),
            ):
                if told.code != 0:
                    campaign.faults.append(f"{name} exits {told.code}: {(told.out + told.err)[:1500]}")
    return campaign


async def _recovered(recovering: dict[str, asyncio.Task[None]]) -> None:
    for part in list(recovering):
        try:
            await recovering[part]
        except TimeoutError:
            raise AssertionError(f"{part} did not recover within {RECOVERS_WITHIN_SECONDS:g} s") from None
        del recovering[part]


async def _settle(stage: Stage, campaign: Campaign) -> dict[str, list[Envelope]]:
    """Wait until nothing is owed and the copies are level; then read the streams."""
    record = stage.record
    took = await until(lambda: not record.open_runs(), within_seconds=ENDS_WITHIN_SECONDS, what="every run ended")
    took += await until(lambda: level(record), within_seconds=ENDS_WITHIN_SECONDS, what="ledgers level with the stores")
    campaign.settled_seconds = took
    return await read_streams(stage.platform, record)


def examine(stage: Stage, campaign: Campaign, streams: dict[str, list[Envelope]]) -> None:
    """Every check, on the files of the stopped home."""
    runs = campaign.runs = checks.Runs.of(stage.record)
    effects = list(stage.desk.effects)
    campaign.effects = len(effects)
    campaign.witnessed = sum(effect.authorised is True for effect in effects)
    campaign.unknown_effects = sum(
        runs.calls[key].outcomes == ["unknown"] for key in {e.key for e in effects} & runs.calls.keys()
    )
    campaign.events = sum(map(len, streams.values()))
    campaign.faults += campaign.history.faults
    campaign.faults += checks.one_end_for_each_run(runs, campaign.history)
    campaign.faults += checks.no_effect_before_its_authorisation(runs, effects)
    campaign.faults += checks.no_effect_twice_and_each_outcome_true(runs, effects)
    campaign.faults += checks.everybody_acted_as_themselves(runs, effects, stage.user_ids)
    for tenant in stage.record.tenants():
        campaign.faults += checks.copies_without_a_gap(stage.record, streams, tenant=tenant)
    if stage.desk.turned_away:
        campaign.faults.append(f"the desk was shown {stage.desk.turned_away} tokens that it never gave")
