"""A run is recorded under a session: one that auth knows as its user's, or there is no run."""

from __future__ import annotations

import asyncio

import pytest
from unit.agent_runtime.runtime import ME, Runtime

from remit_contracts.errors import NotSignedIn, Unavailable


async def test_nothing_is_decided_recorded_or_kept_in_line_under_a_session_that_is_none(runtime: Runtime) -> None:
    services = runtime.world.services
    services.ended_sessions = {"s-1"}
    with pytest.raises(NotSignedIn) as refused:
        await runtime.start()
    assert refused.value.refusal_code == "auth.session_ended"
    with pytest.raises(NotSignedIn):
        await runtime.runs.list_agents(ME)
    assert (services.asked, len(runtime.queue), await runtime.world.events()) == ([], 0, [])


async def test_while_auth_is_away_no_run_is_accepted(runtime: Runtime) -> None:
    services = runtime.world.services
    services.auth_is_silent = Unavailable("auth.describe-session: no answer in time")
    runtime.runs._patience_seconds = 0.3
    with pytest.raises(Unavailable, match="describe-session"):
        await runtime.start()
    assert (services.asked, len(runtime.queue), await runtime.world.events()) == ([], 0, [])


async def test_a_new_run_waits_while_auth_restarts(runtime: Runtime) -> None:
    services = runtime.world.services
    services.auth_is_silent = Unavailable("auth.describe-session: nobody answers")
    starting = asyncio.create_task(runtime.start())
    while not services.sessions_asked:
        await asyncio.sleep(0)
    services.auth_is_silent = None
    assert (await starting).status == "accepted"
