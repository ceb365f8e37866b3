"""A running platform while a part of it is stopped or its disk is full: nothing is allowed, and it is said."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
from contextlib import closing, contextmanager

import pytest

from remit_contracts.errors import NotSignedIn, Refusal, Unavailable

QUESTION = "how many flights"


@contextmanager
def stopped(platform, name):
    """A part that hangs: its connections stay open and nothing comes back."""
    pid = int(platform.endpoints["pids"][name])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def full_disk(platform, name):
    """No file of that process may grow any more: every write fails for real."""
    pid = int(platform.endpoints["pids"][name])
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def events(platform, service, topic):
    """How many events of a topic the service's file of acme holds."""
    path = platform.home / "store" / service / "acme.sqlite"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return db.execute("SELECT count(*) FROM stored_events WHERE topic = ?", (topic,)).fetchone()[0]


async def works_again(client):
    """The platform recovers by itself."""
    async with asyncio.timeout(30):
        while True:
            try:
                view = await client.run("analyst", QUESTION)
            except Refusal:
                await asyncio.sleep(0.1)
                continue
            if view["status"] == "completed":
                return


async def test_while_policy_hangs_nothing_is_allowed(platform):
    async with platform.client("acme/administrator", timeout_seconds=20) as client:
        await works_again(client)
        before = events(platform, "agent-runtime", "runtime.Run.Accepted")
        with stopped(platform, "policy"):
            for asked in (client.start("analyst", QUESTION), client.trail(of="analyst")):
                with pytest.raises(Unavailable):
                    await asked
        assert events(platform, "agent-runtime", "runtime.Run.Accepted") == before
        await works_again(client)


async def test_while_auth_hangs_nobody_new_gets_in_and_nothing_new_is_allowed(platform):
    async with platform.client("acme/analyst", timeout_seconds=20) as client:
        await works_again(client)
        token = platform.token("acme/reader")
        with stopped(platform, "auth"):
            from remit.client import connect

            with pytest.raises((NotSignedIn, Unavailable)):
                async with connect(platform.endpoints["nats"], token=token):
                    pass
            await asyncio.sleep(2.5)  # policy keeps what it knows for two seconds, and no longer
            with pytest.raises(Refusal) as refused:
                await client.start("analyst", QUESTION)
            assert refused.value.refusal_code in ("policy.directory_unavailable", "unavailable")
        await works_again(client)


async def test_with_a_full_disk_no_run_is_accepted_and_none_is_lost(platform):
    async with platform.client("acme/analyst", timeout_seconds=20) as client:
        await works_again(client)
        before = await client.runs()
        with full_disk(platform, "agent-runtime"):
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await client.start("analyst", QUESTION)
            assert await client.runs() == before
        await works_again(client)
        assert len(await client.runs()) == len(before) + 1


async def test_a_denial_that_cannot_be_recorded_denies_all_the_same(platform):
    async with platform.client("acme/reader", timeout_seconds=20) as client:
        with full_disk(platform, "policy"):
            with pytest.raises(Refusal) as refused:
                await client.trail(of="analyst")
            assert refused.value.refusal_code == "absent"
        async with asyncio.timeout(20):
            before = events(platform, "policy", "policy.Decision.Denied")
            while events(platform, "policy", "policy.Decision.Denied") == before:
                with pytest.raises(Refusal):
                    await client.trail(of="analyst")


async def shown(client):
    """A trail's first entry, as soon as there is one that can be read."""
    async with asyncio.timeout(20):
        while True:
            try:
                if entries := (await client.trail(limit=1))["entries"]:
                    return entries[0]
            except Unavailable:
                pass
            await asyncio.sleep(0.1)


async def test_a_trail_is_not_shown_while_its_reading_cannot_be_recorded(platform):
    async with platform.client("acme/administrator", timeout_seconds=20) as client:
        first = await shown(client)
        with full_disk(platform, "audit"):
            with pytest.raises(Unavailable):
                await client.trail(limit=1)
        assert await shown(client) == first
