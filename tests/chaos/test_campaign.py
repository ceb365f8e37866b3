"""kill -9 of any one service, and of the bus, at random moments of runs under load: nothing is lost, doubled or unrecorded."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from chaos.campaign import ENGINES, PARTS, RECOVERS_WITHIN_SECONDS, Campaign, run_campaign
from chaos.stage import TOOL_HOST
from fixtures_platform import running_platform

SEED = os.environ.get("REMIT_CHAOS_SEED", "20261124")
LONG_KILLS = int(os.environ.get("REMIT_CHAOS_KILLS", "72"))

# The client library forgets the socket of a reconnect that was refused, as by a bus whose auth service is not back yet.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")


def assert_nothing_broke(campaign: Campaign, *, parts: Sequence[str], kills: int) -> None:
    assert not campaign.faults, campaign.report()
    assert len(campaign.kills) == kills
    assert {kill.part for kill in campaign.kills} == set(parts)
    # A schedule that never hit proves nothing.
    assert all(kill.runs_in_flight for kill in campaign.kills), campaign.report()
    if kills > len(parts):  # with one kill of each, those few may all have come between two calls
        assert sum(kill.calls_in_flight for kill in campaign.kills), campaign.report()
    assert all(0 < kill.recovered_seconds < RECOVERS_WITHIN_SECONDS for kill in campaign.kills), campaign.report()
    ends = [end for found in campaign.runs.ends.values() for end in found]
    assert ends.count("completed") > len(ends) / 2, campaign.report()
    assert campaign.witnessed > kills, campaign.report()


@pytest.mark.timeout(300)
async def test_a_kill_of_each_part_under_load_loses_and_doubles_nothing(tmp_path, capsys):
    with running_platform(tmp_path, "--demo") as platform:
        campaign = await run_campaign(platform, tmp_path, seed=SEED, kills=len(PARTS), lanes=2, together=0.5)
    with capsys.disabled():
        print(f"\n{campaign.report()}")
    assert_nothing_broke(campaign, parts=PARTS, kills=len(PARTS))


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_a_long_campaign_of_kills_under_load_loses_and_doubles_nothing(tmp_path, capsys):
    with running_platform(tmp_path, "--demo") as platform:
        parts = (*PARTS, *(engine for engine in ENGINES if engine in {TOOL_HOST, *platform.endpoints["pids"]}))
        campaign = await run_campaign(platform, tmp_path, seed=f"long-{SEED}", kills=LONG_KILLS, lanes=3, parts=parts)
    with capsys.disabled():
        print(f"\n{campaign.report()}")
    assert_nothing_broke(campaign, parts=parts, kills=LONG_KILLS)
