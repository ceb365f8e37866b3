"""Cancelling at any moment leaves a connection that works. The client library's own `flush` does not see to that."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from fixtures_nats import Bus
from integration.auth_platform import Platform

import remit.round_trip
import remit_chassis.round_trip
from remit.client import Client, connect
from remit_chassis import operations
from remit_contracts import subjects
from remit_contracts.errors import Unavailable


@pytest.fixture
async def platform(nats_bus: Bus) -> AsyncIterator[Platform]:
    """A bus with the auth service and nothing else."""
    platform = Platform(nats_bus)
    await platform.open()
    await platform.seed()
    yield platform
    await platform.close()


@pytest.fixture
async def token(platform: Platform) -> str:
    """Ann's."""
    return str((await platform.ok("issue-token", {"handle": "ann", "ttl_seconds": 600}))["token"])


@pytest.fixture
async def ann(platform: Platform, token: str) -> AsyncIterator[Client]:
    """Her client."""
    async with connect(platform.bus.url, token=token, timeout_seconds=5) as client:
        yield client


@contextmanager
def hung(bus: Bus) -> Iterator[None]:
    """The server takes in nothing and answers nothing meanwhile."""
    os.kill(bus.pid, signal.SIGSTOP)
    try:
        while psutil.Process(bus.pid).status() != psutil.STATUS_STOPPED:  # its threads stop one after the other
            time.sleep(0.001)
        yield
    finally:
        os.kill(bus.pid, signal.SIGCONT)


async def cancelled_at_every_step(call: Callable[[], Awaitable[Any]], works: Callable[[], Awaitable[Any]]) -> int:
    """Cancel `call` after 0, 1, 2, ... turns of the loop, until it comes to its end first: how often it was cancelled.

    `works` is asked each time, and raises when the connection is dead.
    """
    for turns in range(100_000):
        task = asyncio.ensure_future(call())
        for _ in range(turns):
            await asyncio.sleep(0)
            if task.done():
                break
        ended = not task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        if ended:
            return turns
        await works()
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("verb", ["subscribe", "publish", "whoami", "run"])
async def test_a_call_that_is_cancelled_at_any_step_leaves_a_connection_that_works(ann: Client, verb: str) -> None:
    caller = ann.session.caller
    heard = subjects.live(caller.tenant, caller.user, "run", "r1")

    async def listen() -> None:
        subscription = await ann.subscribe(heard)
        await subscription.unsubscribe()

    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "subscribe": listen,
        "publish": lambda: ann.publish(subjects.command(caller.tenant, caller.user, "auth", "whoami"), b"{}"),
        "whoami": ann.whoami,
        "run": lambda: ann.run("analyst", "x", timeout_seconds=5),  # no runtime: start-run is answered by nobody
    }
    await ann.whoami()
    listening = set(ann.nats._subs)
    assert await cancelled_at_every_step(calls[verb], ann.whoami) > 1
    assert (await ann.whoami())["handle"] == "ann"
    assert set(ann.nats._subs) == listening, "a cancelled call listens on"


async def test_closing_that_is_cancelled_at_any_step_leaves_no_socket_open(platform: Platform, token: str) -> None:
    for turns in range(1, 12):
        client = await connect(platform.bus.url, token=token).__aenter__()
        transport = client.nats._transport
        assert transport is not None
        closing = asyncio.ensure_future(client.__aexit__(None, None, None))
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})
        assert transport._io_writer.is_closing()


async def test_a_service_outlives_a_bus_that_hangs_while_its_health_is_asked(
    platform: Platform, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "PROBE_SECONDS", 0.1)
    with hung(platform.bus), pytest.raises(Unavailable, match=r"did not answer in 0\.1 s"):
        await platform.service.checks["bus"]()
    monkeypatch.setattr(operations, "PROBE_SECONDS", 5.0)
    assert await platform.service.checks["bus"]() == "the bus answered"
    assert (await ann.whoami())["handle"] == "ann"


@pytest.mark.parametrize("taken_in", [remit.round_trip.taken_in, remit_chassis.round_trip.taken_in])
async def test_a_round_trip_that_is_cancelled_or_late_ends_nothing(
    nats_bus: Bus, taken_in: Callable[..., Awaitable[None]]
) -> None:
    async with nats_bus.client("policy") as nc:

        async def round_trip() -> None:
            await taken_in(nc, within_seconds=5)

        assert await cancelled_at_every_step(round_trip, round_trip) > 1
        with hung(nats_bus), pytest.raises(Unavailable, match=r"did not answer in 0\.1 s"):
            await taken_in(nc, within_seconds=0.1)
        await taken_in(nc, within_seconds=5)
        heard = await nc.subscribe(subjects.any_request("rpc", "policy", "decide"))
        async with nats_bus.client("agent-runtime") as runtime:
            await taken_in(nc, within_seconds=5)
            await runtime.publish(
                subjects.rpc("acme", "u-1", "policy", "decide"), b"{}", reply="_INBOX_SVC.agent-runtime.policy.1"
            )
            assert (await heard.next_msg(5)).data == b"{}"
        nats_bus.stop()
        async with asyncio.timeout(5):
            while nc.is_connected:
                await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="connection to the bus is lost"):
            await taken_in(nc, within_seconds=5)
