"""The tool that needs a lease, against a real server that counts what reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from integration.toolhost_desk import Desk
from nacl.public import PrivateKey
from unit.toolhost.rig import Rig, make_rig

from remit_agent_runtime.tool_host_client import OutcomeUnknown, ToolHostClient, ToolOutcome
from remit_agent_runtime.toolhost.scrub import PLACEHOLDER

TOKEN = "sk-live_0123456789.abcdef~XYZ"
"""As RFC 6750 allows it in a header."""


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return make_rig(tmp_path)


@pytest.fixture
async def desk(rig: Rig) -> AsyncIterator[Desk]:
    async with Desk() as made:
        rig.write_tools(url=f"http://{made.address}/conditions/{{airport}}")
        yield made


@pytest.fixture
async def client(rig: Rig, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ToolHostClient]:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    made = rig.client()
    await made.start()
    yield made
    await made.close()


async def ask(
    rig: Rig, desk: Desk, client: ToolHostClient, airport: str, *, seconds: float = 10.0, **lease: Any
) -> ToolOutcome:
    """A call with a good lease, but for what is changed in it."""
    arguments = {"airport": airport, "days": 2}
    claims = rig.claims("desk", arguments)
    held = {"hosts": (desk.address,), "secret": TOKEN} | lease
    sealed = rig.lease(claims, **held)
    return await client.call(rig.call("desk", arguments, claims=claims, sealed=sealed, deadline_seconds=seconds))


async def test_a_lease_reaches_the_server_as_bearer_with_the_calls_own_key(
    rig: Rig, desk: Desk, client: ToolHostClient
) -> None:
    arguments = {"airport": "JFK", "days": 2}
    claims = rig.claims("desk", arguments, ordinal=7)
    sealed = rig.lease(claims, hosts=(desk.address,), secret=TOKEN)
    outcome = await client.call(rig.call("desk", arguments, claims=claims, sealed=sealed))
    assert (outcome.ok, outcome.content) == (True, {"airport": "JFK"})
    (seen,) = desk.ledger
    assert seen.line == "GET /conditions/JFK?days=2"
    assert seen.headers["authorization"] == f"Bearer {TOKEN}"
    assert seen.headers["idempotency-key"] == f"{claims.run}:7"


async def test_without_a_lease_or_with_anothers_nothing_reaches_the_server(
    rig: Rig, desk: Desk, client: ToolHostClient
) -> None:
    arguments = {"airport": "JFK"}
    claims, other = rig.claims("desk", arguments), rig.claims("desk", arguments)
    for sealed, code in [
        (None, "tool.lease_required"),
        (rig.lease(other, hosts=(desk.address,)), "tool.lease_invalid"),
        (rig.lease(claims, hosts=(desk.address,), sealer=PrivateKey.generate()), "tool.lease_invalid"),
        (rig.lease(claims, hosts=(desk.address,), user="u-2"), "tool.lease_invalid"),
        (rig.lease(claims, hosts=(desk.address,), expires_at=1.0), "tool.lease_invalid"),
        (rig.lease(claims, hosts=()), "tool.lease_invalid"),
        (rig.lease(claims, hosts=("127.0.0.1",)), "tool.lease_invalid"),
        (rig.lease(claims, hosts=("127.0.0.1:1", f"evil{desk.address}", f"{desk.address}0")), "tool.lease_invalid"),
    ]:
        fresh = rig.claims("desk", arguments, jti=claims.jti, run=claims.run) if sealed is None else claims
        outcome = await client.call(rig.call("desk", arguments, claims=fresh, sealed=sealed))
        assert outcome.error is not None
        assert outcome.error["code"] in {code, "permit.used"}
    assert desk.ledger == []


@pytest.mark.parametrize(
    "lease",
    [
        {"user": "u-2"},
        {"tenant": "globex"},
        {"tool": "mail"},
        {"connection": "mail"},
        {"expires_at": 1.0},
        {"hosts": ()},
        {"hosts": ("127.0.0.1",)},
        {"hosts": ("127.0.0.1:1",)},
        {"hosts": ("*",)},
        {"hosts": ("evil.example",)},
    ],
)
async def test_a_lease_for_anything_else_opens_no_connection(
    rig: Rig, desk: Desk, client: ToolHostClient, lease: dict[str, Any]
) -> None:
    outcome = await ask(rig, desk, client, "JFK", **lease)
    assert outcome.error is not None
    assert outcome.error["code"] == "tool.lease_invalid"
    assert desk.ledger == []


async def test_the_same_call_twice_reaches_the_server_once(rig: Rig, desk: Desk, client: ToolHostClient) -> None:
    arguments = {"airport": "JFK"}
    claims = rig.claims("desk", arguments)
    sealed = rig.lease(claims, hosts=(desk.address,), secret=TOKEN)
    call = rig.call("desk", arguments, claims=claims, sealed=sealed)
    outcomes = await asyncio.gather(*(client.call(call) for _ in range(10)))
    assert sum(outcome.ok for outcome in outcomes) == 1
    assert len(desk.ledger) == 1
    again = rig.claims("desk", arguments, run=claims.run)  # a new permit does not revive the lease
    outcome = await client.call(rig.call("desk", arguments, claims=again, sealed=sealed))
    assert outcome.error is not None
    assert outcome.error["code"] == "tool.lease_invalid"
    assert len(desk.ledger) == 1


async def test_an_echoed_credential_is_taken_out(rig: Rig, desk: Desk, client: ToolHostClient) -> None:
    outcome = await ask(rig, desk, client, "echo")
    assert outcome.ok
    assert TOKEN not in orjson.dumps(outcome.content).decode()
    assert outcome.content["shown"] == PLACEHOLDER
    assert PLACEHOLDER in outcome.content["basic"]
    refused = await ask(rig, desk, client, "echo-error")
    assert refused.error is not None
    assert refused.error["code"] == "tool.http_status"
    assert refused.content == {"status": 403, "body": f"bad token {PLACEHOLDER}"}


async def test_a_credential_that_no_header_can_hold_is_refused_without_showing_it(
    rig: Rig, desk: Desk, client: ToolHostClient
) -> None:
    for secret in ("pass word", "sk-é", "a\r\nX-Injected: 1", "a\nb", "a b"):
        outcome = await ask(rig, desk, client, "JFK", secret=secret)
        assert outcome.error is not None
        assert outcome.error["code"] == "tool.lease_invalid"
        assert secret not in outcome.error["reason"]
    assert desk.ledger == []


async def test_a_redirect_is_not_followed(rig: Rig, desk: Desk, client: ToolHostClient) -> None:
    outcome = await ask(rig, desk, client, "redirect")
    assert outcome.error is not None
    assert outcome.error["code"] == "tool.http_status"
    assert len(desk.ledger) == 1


@pytest.mark.parametrize(
    ("airport", "code"),
    [
        ("big", "tool.result_too_large"),
        ("gzip", "tool.malformed_result"),
        ("junk", "tool.malformed_result"),
        ("drop", "tool.unreachable"),
        ("silent", "tool.timeout"),
    ],
)
async def test_an_answer_that_is_none_is_refused(
    rig: Rig, desk: Desk, client: ToolHostClient, airport: str, code: str
) -> None:
    outcome = await ask(rig, desk, client, airport, seconds=1.0)
    assert outcome.error is not None
    assert outcome.error["code"] == code


@pytest.mark.parametrize("airport", ["silent", "drop"])
async def test_a_request_that_may_have_been_acted_on_has_an_unknown_outcome(
    rig: Rig, desk: Desk, client: ToolHostClient, airport: str
) -> None:
    rig.write_tools(url=f"http://{desk.address}/conditions/{{airport}}", method="POST")
    with pytest.raises(OutcomeUnknown, match="may have been acted on"):
        await ask(rig, desk, client, airport, seconds=1.0)
    (seen,) = desk.ledger
    assert (seen.line, seen.body) == (f"POST /conditions/{airport}", b'{"days":2}')


async def test_a_server_that_is_not_there_has_a_known_outcome(rig: Rig, desk: Desk, client: ToolHostClient) -> None:
    rig.write_tools(url="http://127.0.0.1:1/conditions/{airport}", method="POST")
    outcome = await ask(rig, desk, client, "JFK", hosts=("127.0.0.1:1",))
    assert outcome.error is not None
    assert outcome.error["code"] == "tool.unreachable"


async def test_a_cancelled_request_is_broken_off(rig: Rig, desk: Desk, client: ToolHostClient) -> None:
    call = asyncio.create_task(ask(rig, desk, client, "silent", seconds=60))
    await asyncio.wait_for(desk.reached.wait(), 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await ask(rig, desk, client, "LGA")).content == {"airport": "LGA"}  # its own answer, nobody else's


async def test_arguments_choose_no_other_host(rig: Rig, desk: Desk, client: ToolHostClient) -> None:
    for airport in ("@evil.example", "../../x", "a?b#c", "//evil.example", "\\evil"):
        await ask(rig, desk, client, airport)
    assert len(desk.ledger) == 5
    assert all(seen.line.startswith("GET /conditions/") for seen in desk.ledger)
    assert all("/" not in seen.line.removeprefix("GET /conditions/") for seen in desk.ledger)
