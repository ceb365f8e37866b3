"""The client library on a bus that goes away and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fixtures_nats import Bus
from integration.auth_platform import Platform

from remit import client as library
from remit.client import Client, connect
from remit_contracts import subjects
from remit_contracts.errors import Unavailable


@pytest.fixture
async def platform(nats_bus: Bus) -> AsyncIterator[Platform]:
    """A bus with the auth service and ann of acme."""
    platform = Platform(nats_bus)
    await platform.open()
    await platform.seed()
    yield platform
    await platform.close()


@pytest.fixture
async def ann(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """Her client, which makes its attempts quickly."""
    monkeypatch.setattr(library, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(library, "LONGEST_PAUSE_SECONDS", 0.05)
    issued = await platform.ok("issue-token", {"handle": "ann", "ttl_seconds": 600})
    async with connect(platform.bus.url, token=issued["token"], timeout_seconds=20) as client:
        assert (await client.whoami())["handle"] == "ann"
        yield client


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def attempts(client: Client) -> int:
    """How many attempts in a row have failed."""
    return max((server.reconnects for server in client.nats._server_pool), default=0)


async def test_a_connection_is_made_again_however_long_the_bus_was_away(platform: Platform, ann: Client) -> None:
    caller = ann.session.caller
    heard = await ann.subscribe(subjects.live(caller.tenant, caller.user, "run", "r1"))
    platform.bus.stop()
    await until(lambda: attempts(ann) > 3 * library.FIRST_ATTEMPTS)
    with pytest.raises(Unavailable, match="connection to the bus is lost") as refused:
        await ann.request(ann.session.caller.user, b"{}", timeout_seconds=0.2)
    assert (refused.value.refusal_code, refused.value.retry_after_seconds) == ("unavailable", 0.05)
    for verb in (ann.publish("x", b""), ann.subscribe("x")):
        ann._timeout_seconds = 0.2
        with pytest.raises(Unavailable):
            await verb
    ann._timeout_seconds = 20
    platform.bus.start()
    assert (await ann.whoami())["handle"] == "ann"
    async with platform.bus.client("agent-runtime") as runtime:
        await runtime.publish(subjects.live(caller.tenant, caller.user, "run", "r1"), b"again")
        assert (await heard.next_msg(10)).data == b"again"


async def test_a_request_waits_for_the_connection_and_is_sent_once_it_is_there(platform: Platform, ann: Client) -> None:
    platform.bus.stop()
    await until(lambda: not ann.nats.is_connected)
    asking: asyncio.Task[dict[str, Any]] = asyncio.create_task(ann.whoami())
    await until(lambda: attempts(ann) > 2)
    assert not asking.done()
    platform.bus.start()
    assert (await asking)["handle"] == "ann"


async def test_what_was_refused_for_want_of_a_connection_is_not_sent_later(platform: Platform, ann: Client) -> None:
    caller = ann.session.caller
    subject = subjects.command(caller.tenant, caller.user, "agent-runtime", "start-run")
    platform.bus.stop()
    await until(lambda: not ann.nats.is_connected)
    with pytest.raises(Unavailable):
        await ann.request(subject, b"late", timeout_seconds=0.1)
    platform.bus.start()
    async with platform.bus.client("agent-runtime") as runtime:
        arrived = await runtime.subscribe(subjects.any_request("cmd", "agent-runtime", "start-run"))
        await runtime.flush()
        await ann.whoami()
        with pytest.raises(Unavailable):
            await ann.request(subject, b"timely", timeout_seconds=0.5)
        assert (await arrived.next_msg(10)).data == b"timely"


async def test_a_first_connection_that_cannot_be_made_is_given_up(monkeypatch: pytest.MonkeyPatch, ann: Client) -> None:
    monkeypatch.setattr(library, "FIRST_ATTEMPTS", 1)
    with pytest.raises(Unavailable, match="no bus at"):
        async with connect("nats://127.0.0.1:1", token=ann._token):
            raise AssertionError("connected")


def test_the_pauses_between_attempts_grow_and_stay_bounded() -> None:
    from nats.aio.client import Server, urlparse

    for failed in (0, 1, 5, 1_000_000):
        server = Server(urlparse("nats://127.0.0.1:4222"), reconnects=failed)
        longest = min(library.FIRST_PAUSE_SECONDS * 2 ** min(failed, 16), library.LONGEST_PAUSE_SECONDS)
        pauses = [library._next_attempt([server], {})[1] for _ in range(20)]
        assert longest / 2 <= min(pauses) <= max(pauses) <= longest
