"""Every decision is recorded so that it can be decided again: allows inside the effect's own event, denials by policy."""

import asyncio
import json

import pytest

from remit.cli.installation import Installer
from remit_contracts.identity import Handle


async def _until_recorded(client, event):
    async with asyncio.timeout(20):
        while True:
            entries = [entry async for entry in client.entries()]
            if any(entry["event"] == event for entry in entries):
                return entries
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("who", "ended_with", "allowed"),
    [("acme/analyst", "runtime.Run.ToolCallCompleted", True), ("acme/reader", "policy.Decision.Denied", False)],
)
async def test_a_recorded_decision_comes_out_the_same_when_decided_again(platform, who, ended_with, allowed):
    async with platform.client(who) as client, platform.service_connection("installer") as nc:
        await client.run("analyst", "how many flights")
        entries = await _until_recorded(client, ended_with)
        user = client.session.caller.user
        recorded = [
            entry["data"]["decision"] if "decision" in entry["data"] else entry["data"]
            for entry in entries
            if entry["event"] in ("runtime.Run.ToolCallAuthorized", "policy.Decision.Denied")
        ]
        assert recorded
        for decision in recorded:
            asked = {"input": decision.get("engine_input") or json.loads(decision["input"])}
            tenant = Handle.parse(who).tenant
            again = await Installer(nc).ask(tenant, "policy", "redecide", asked, user=user)
            assert again["decision"] is allowed
            assert again["bundle_digest"] == decision["bundle_digest"]
