"""What is no kill: a platform that is told to stop under load, a service that hangs, a bus that comes back without its store."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from chaos.campaign import ENDS_WITHIN_SECONDS, RECOVERS_WITHIN_SECONDS, Campaign, examine
from chaos.effect_desk import EffectDesk
from chaos.load import Load
from chaos.record import ACCEPTED, CALL_AUTHORIZED, RUNTIME
from chaos.stage import Stage, level, pid_of, read_streams, staged, until
from fixtures_platform import Platform, running_platform

from remit_infra.engines import free_port

SEED = "stop"
LEFT_ALONE = {
    "unavailable",
    "permit.before_start",
    "lease.permit_before_start",
    "policy.directory_unavailable",
    "policy.engine_unreachable",
}
"""What a call or a run dies of when a service that it needs is stopped before it."""

# The client library forgets the socket of a reconnect that was refused, as by a bus whose auth service is not back yet.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")


async def rested(stage: Stage, load: Load) -> None:
    """Every run that anybody was promised has ended, and the ledgers have it all."""
    await load.rest(ENDS_WITHIN_SECONDS)
    await until(lambda: not stage.record.open_runs(), within_seconds=ENDS_WITHIN_SECONDS, what="every run ended")
    await until(lambda: level(stage.record), within_seconds=ENDS_WITHIN_SECONDS, what="ledgers level with the stores")


async def examined(stage: Stage, load: Load) -> Campaign:
    """Streams read, platform stopped, everything checked."""
    campaign = Campaign(SEED, history=load.history)
    streams = await read_streams(stage.platform, stage.record)
    for offline in ((), ("--offline",)):
        checked = await asyncio.to_thread(stage.platform.cli, "audit", "check", *offline, timeout=180)
        assert checked.code == 0, checked.out + checked.err
        await asyncio.to_thread(stage.platform.stop)
    examine(stage, campaign, streams)
    assert not campaign.faults, campaign.report()
    return campaign


@pytest.mark.timeout(300)
async def test_a_stop_under_load_waits_for_open_calls_and_the_next_start_ends_every_run(tmp_path: Path) -> None:
    with (
        running_platform(tmp_path, "--demo", "--nats-port", str(free_port())) as platform,
        EffectDesk(platform.home, tmp_path / "effects.jsonl", seed=SEED) as desk,
    ):
        async with staged(platform, desk) as stage:
            load = stage.load(lanes=2, seed=SEED)
            load.start()
            await until(lambda: stage.record.open_calls() > 1, within_seconds=30, what="open tool calls")
            process = platform.process
            await asyncio.to_thread(platform.stop)
            assert process is not None
            assert process.returncode == 0, platform.log
            owed, cut_off = stage.record.open_runs(), stage.record.open_calls()
            await asyncio.to_thread(platform.start)
            await rested(stage, load)
            campaign = await examined(stage, load)
    assert owed, "the stop hit no run"
    assert cut_off == 0, "tool calls were cut off"
    outcomes = {outcome for call in campaign.runs.calls.values() for outcome in call.outcomes}
    assert "unknown" not in outcomes, campaign.report()
    failures = {call.error for call in campaign.runs.calls.values()} | campaign.runs.errors.keys()
    assert not failures & LEFT_ALONE, campaign.report()
    assert owed <= campaign.runs.ends.keys()


@pytest.mark.timeout(300)
async def test_a_bus_that_lost_its_whole_store_is_filled_again_from_the_databases(tmp_path: Path) -> None:
    with (
        running_platform(tmp_path, "--demo") as platform,
        EffectDesk(platform.home, tmp_path / "effects.jsonl", seed=SEED) as desk,
    ):
        async with staged(platform, desk) as stage:
            load = stage.load(lanes=1, seed=SEED)
            load.start()
            await until(lambda: len(desk.effects) > 5, within_seconds=60, what="effects")
            await rested(stage, load)
            before = await read_streams(platform, stage.record)
            await asyncio.to_thread(platform.stop)
            shutil.rmtree(platform.home / "nats" / "js")
            await asyncio.to_thread(platform.start)
            await until_refilled(platform, stage, {tenant: len(found) for tenant, found in before.items()})
            campaign = await examined(stage, load)
    assert campaign.events >= sum(map(len, before.values()))


@pytest.mark.timeout(300)
async def test_while_policy_or_auth_hangs_nothing_is_allowed_and_then_work_goes_on(tmp_path: Path) -> None:
    with (
        running_platform(tmp_path, "--demo") as platform,
        EffectDesk(platform.home, tmp_path / "effects.jsonl", seed=SEED) as desk,
    ):
        async with staged(platform, desk) as stage:
            load = stage.load(lanes=2, seed=SEED)
            load.start()
            await until(lambda: len(desk.effects) > 3, within_seconds=60, what="effects")
            for part, settled_after in (("policy", 0.5), ("auth", 3.0)):  # policy keeps roles for 2 s
                assert await allowed_while_hanging(stage, part, settled_after) == []
                await until(lambda: bool(stage.record.open_runs()), within_seconds=30, what="runs are accepted again")
                heads = {tenant: stage.record.heads(tenant)[RUNTIME] for tenant in stage.record.tenants()}
                for tenant, head in heads.items():
                    await until(
                        lambda tenant=tenant, head=head: stage.record.completed_since(tenant, head),
                        within_seconds=RECOVERS_WITHIN_SECONDS,
                        what=f"a new run of {tenant} completed after {part} had hung",
                    )
            await rested(stage, load)
            await examined(stage, load)


async def allowed_while_hanging(stage: Stage, part: str, settled_after: float) -> list[str]:
    """Stop the process for a while (SIGSTOP); what was allowed once the answers that were on their way had come."""
    pid = pid_of(stage.platform, part)
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(settled_after)
        since = now()
        await asyncio.sleep(3)  # the span in which nothing may be allowed
        until_then = now()
    finally:
        os.kill(pid, signal.SIGCONT)
    stored = [envelope for tenant in stage.record.tenants() for envelope in stage.record.store(RUNTIME, tenant)]
    assert any(envelope.recorded_at < since for envelope in stored), "there was no load before"
    return [
        f"{envelope.topic} at {envelope.recorded_at}, {part} hanging"
        for envelope in stored
        if envelope.topic in (ACCEPTED, CALL_AUTHORIZED) and since < envelope.recorded_at < until_then
    ]


def now() -> str:
    """As events spell instants."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def until_refilled(platform: Platform, stage: Stage, sizes: dict[str, int]) -> None:
    """Wait until each stream has at least as many events as it had, and the ledgers are level again."""
    async with asyncio.timeout(60):
        while any(len(found) < sizes[tenant] for tenant, found in (await read_streams(platform, stage.record)).items()):
            await asyncio.sleep(0.2)
    await until(lambda: level(stage.record), within_seconds=60, what="ledgers level with the stores")
