"""What the client refuses by itself, and how: coded refusals in words, on a connection that goes on working."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from fixtures_nats import Bus
from integration.auth_platform import Platform

from remit.cli.installation import Installer
from remit.client import Client, connect
from remit_contracts import subjects
from remit_contracts.errors import MalformedCommand, NotSignedIn, Refusal, Unavailable


@pytest.fixture
async def ann(nats_bus: Bus) -> AsyncIterator[Client]:
    """Her client, on a bus with the auth service and nothing else."""
    platform = Platform(nats_bus)
    await platform.open()
    await platform.seed()
    issued = await platform.ok("issue-token", {"handle": "ann", "ttl_seconds": 600})
    async with connect(nats_bus.url, token=issued["token"], timeout_seconds=5) as client:
        yield client
    await platform.close()


def whoami(client: Client) -> str:
    caller = client.session.caller
    return subjects.command(caller.tenant, caller.user, "auth", "whoami")


@pytest.mark.parametrize(
    ("call", "code", "said"),
    [
        (lambda ann: ann.request("a b", b""), "request.malformed_subject", "'a b' is no subject"),
        (lambda ann: ann.request("", b""), "request.malformed_subject", "'' is no subject"),
        (lambda ann: ann.request("remit.>", b""), "request.malformed_subject", "is no subject"),
        (lambda ann: ann.publish("x\r\nPUB y 0", b""), "request.malformed_subject", "is no subject"),
        (lambda ann: ann.publish(whoami(ann), b"{}", reply="a b"), "request.malformed_subject", "'a b' is no subject"),
        (lambda ann: ann.subscribe("a..b"), "request.malformed_subject", "'a..b' is no subject"),
        (lambda ann: ann.subscribe(">.a"), "request.malformed_subject", "'>.a' is no subject"),
        (lambda ann: ann.request(whoami(ann), bytes(2_000_000)), "request.too_large", "has 2000000 bytes and the bus"),
        (lambda ann: ann.publish(whoami(ann), bytes(2_000_000)), "request.too_large", "has 2000000 bytes and the bus"),
        (lambda ann: ann.trail(after=2**80), "request.malformed", "audit.show-trail cannot be said in JSON"),
        (lambda ann: ann.trail(of=object()), "request.malformed", "audit.show-trail cannot be said in JSON"),
        (lambda ann: ann.command("auth", "a.b*"), "request.malformed_id", "is no identifier"),
    ],
)
async def test_what_cannot_be_sent_is_refused_in_words_and_nothing_breaks(
    ann: Client, call: Callable[[Client], Awaitable[Any]], code: str, said: str
) -> None:
    with pytest.raises(Refusal) as refused:
        await call(ann)
    assert refused.value.refusal_code == code
    assert said in refused.value.reason
    assert (await ann.whoami())["handle"] == "ann"


async def test_a_run_that_was_not_accepted_in_time_has_no_id_in_its_words(ann: Client) -> None:
    with pytest.raises(Unavailable, match=r"^the run was not accepted within 1e-05 s, and perhaps never started"):
        await ann.run("analyst", "x", timeout_seconds=0.00001)


@pytest.mark.parametrize("token", [None, "", "x", 7, "a.b.c"])
def test_what_is_no_token_is_told_so(token: Any) -> None:
    with pytest.raises(NotSignedIn, match="this is no session token"):
        connect("nats://127.0.0.1:1", token=token)


@pytest.mark.parametrize("url", ["", " ", None])
def test_what_is_no_address_is_told_so(url: Any) -> None:
    with pytest.raises(MalformedCommand, match="is no address of a bus: nats://HOST:PORT"):
        connect(url, token="x")


async def test_a_bus_that_goes_away_under_the_installer_is_told_as_unavailable(nats_bus: Bus) -> None:
    async with nats_bus.client("installer") as nc:
        nats_bus.stop()
        async with asyncio.timeout(10):
            while nc.is_connected:
                await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="the connection to the bus is lost"):
            await Installer(nc).ask("acme", "auth", "list-users")
