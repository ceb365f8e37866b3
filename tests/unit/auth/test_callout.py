"""The callout's answers, without a server: what is granted, what is refused, what gets no answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from unit.auth.installations import Installation, installation

from remit_auth.callout import Callout
from remit_auth.live_connections import LiveConnections, Place
from remit_auth.message_rates import Counted, Listed, MessageRates
from remit_auth.refusal_log import LINES_PER_SECOND, RefusalLog
from remit_chassis.nkeys import BadClaims, SignKey, XKey, decode_claims, encode_claims
from remit_contracts.identity import Caller

ISSUER, XKEY = SignKey.create("account"), XKey.create()
SERVER, SERVER_XKEY = SignKey.create("server"), XKey.create()
CAP = 2
CONNECTION = SignKey.create("user").public


class Asked:
    """An installation with a callout, asked as the bus server asks."""

    def __init__(self, at: Installation) -> None:
        self.at = at
        self.full: list[tuple[Caller, str]] = []
        self.live = LiveConnections(cap=CAP, monotonic=self._seconds)
        self.live.surveyed(self.live.begin_survey(), {})
        self.rates = MessageRates(per_second=10, monotonic=self._seconds)
        self.callout = Callout(
            issuer=ISSUER,
            xkey=XKEY,
            verifier=at.verifier,
            directory=at.directory,
            live=self.live,
            rates=self.rates,
            full=lambda caller, refusal: self.full.append((caller, refusal.refusal_code)),
            clock=lambda: at.now,
            log=RefusalLog(monotonic=self._seconds),
        )

    def _seconds(self) -> float:
        return self.at.now.timestamp()

    def request(self, token: Any, **changed: Any) -> bytes:
        request = {
            "type": "authorization_request",
            "server_id": {"id": SERVER.public, "xkey": SERVER_XKEY.public},
            "user_nkey": CONNECTION,
            "client_info": {"host": "10.0.0.9", "id": 7},
            "connect_opts": {"auth_token": token},
        } | changed
        claims = {"aud": "nats-authorization-request", "nats": request}
        return SERVER_XKEY.seal(encode_claims(SERVER, claims, at=self.at.now).encode(), XKEY.public)

    def answer(self, data: bytes) -> dict[str, Any]:
        sealed = self.callout.answer(data, {"Nats-Server-Xkey": SERVER_XKEY.public})
        claims = decode_claims(SERVER_XKEY.open(sealed, XKEY.public).decode(), "account", at=self.at.now)
        assert (claims["iss"], claims["sub"], claims["aud"]) == (ISSUER.public, CONNECTION, SERVER.public)
        said: dict[str, Any] = claims["nats"]
        return said

    def refused(self, data: bytes) -> None:
        """One error whatever the reason, and no grant beside it."""
        assert self.answer(data) == {"type": "authorization_response", "version": 2, "error": "not signed in"}


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    async with installation(tmp_path) as at:
        await at.acme()
        yield Asked(at)


async def test_a_grant_is_exactly_what_the_design_allows(asked: Asked) -> None:
    issued = await asked.at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    user = asked.at.directory.of("acme").find("ann").user
    granted = decode_claims(asked.answer(asked.request(issued.token))["jwt"], "account", at=asked.at.now)
    assert (granted["sub"], granted["aud"], granted["iss"]) == (CONNECTION, "APP", ISSUER.public)
    assert granted["exp"] == issued.expires_at.timestamp()
    assert granted["nats"]["pub"] == {"allow": [f"remit.acme.{user}.cmd.>", "$SRV.INFO.agents", "$SRV.PING.agents.*"]}
    assert granted["nats"]["sub"] == {
        "allow": [
            f"remit.acme.{user}.live.>",
            f"agents.hb.*.acme_{user}.*",
            f"_INBOX.acme.{user}.{issued.session}.>",
        ]
    }
    assert "resp" not in granted["nats"]


@pytest.mark.parametrize("token", [None, "", 1, [], {}, "x", "a.b.c", "é" * 10, "a" * 1_000])
async def test_what_is_no_token_is_refused(asked: Asked, token: object) -> None:
    asked.refused(asked.request(token))


async def test_every_revocation_is_refused_with_the_same_error(asked: Asked) -> None:
    accounts = asked.at.accounts
    issued = await accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    request = asked.request(issued.token)
    assert "jwt" in asked.answer(request)
    await accounts.set_user_active(tenant="acme", handle="ann", active=False, reason=None)
    asked.refused(request)
    await accounts.set_user_active(tenant="acme", handle="ann", active=True, reason=None)
    asked.refused(request)
    issued = await accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    request = asked.request(issued.token)
    await accounts.set_tenant_active(tenant="acme", active=False, reason=None)
    asked.refused(request)
    await accounts.set_tenant_active(tenant="acme", active=True, reason=None)
    assert "jwt" in asked.answer(request)
    await accounts.end_session(tenant="acme", session_id=issued.session, reason="stolen")
    asked.refused(request)


async def test_a_user_at_the_cap_is_refused_with_a_code_and_somebody_else_is_not(asked: Asked) -> None:
    await asked.at.accounts.register_user(tenant="acme", handle="bob", email=None, name=None, roles=[])
    issued = await asked.at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    for number in range(CAP):
        assert "jwt" in asked.answer(asked.request(issued.token, client_info={"id": number}))
    said = asked.answer(asked.request(issued.token, client_info={"id": CAP}))
    assert said == {"type": "authorization_response", "version": 2, "error": "overloaded.connections"}
    caller = Caller("acme", asked.at.directory.of("acme").find("ann").user, issued.session)
    assert asked.full == [(caller, "overloaded.connections")]
    bob = await asked.at.accounts.issue_token(tenant="acme", handle="bob", ttl_seconds=60)
    assert "jwt" in asked.answer(asked.request(bob.token, client_info={"id": CAP}))
    asked.live.closed(Place(SERVER.public, 0))
    assert "jwt" in asked.answer(asked.request(issued.token, client_info={"id": CAP + 1}))


async def test_nobody_is_let_in_while_it_is_not_known_who_is_connected(asked: Asked) -> None:
    issued = await asked.at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    asked.live.lost()
    said = asked.answer(asked.request(issued.token))
    assert said == {"type": "authorization_response", "version": 2, "error": "unavailable"}


async def test_a_user_who_flooded_is_refused_for_a_while_and_another_is_not(asked: Asked) -> None:
    issued = await asked.at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=600)
    caller = Caller("acme", asked.at.directory.of("acme").find("ann").user, "s-1")
    for second in (0, 1):
        counted = {Place("N1", 1): Counted(caller, second * 11)}
        asked.rates.looked({"N1": Listed(float(second), counted)})
    said = asked.answer(asked.request(issued.token))
    assert said == {"type": "authorization_response", "version": 2, "error": "overloaded.messages"}
    asked.at.pass_time(6)
    assert "jwt" in asked.answer(asked.request(issued.token))


@pytest.mark.parametrize("number", [None, "7", True, -1, 7.0])
async def test_a_connection_that_could_not_be_cut_off_is_refused(asked: Asked, number: object) -> None:
    issued = await asked.at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    asked.refused(asked.request(issued.token, client_info={"id": number}))


async def test_an_unrecorded_session_is_refused_although_its_token_is_ours(asked: Asked) -> None:
    user = asked.at.directory.of("acme").find("ann").user
    for tenant, session in (("acme", "s-never-opened"), ("globex", "s-1")):
        token = asked.at.issuer.issue(
            tenant=tenant,
            user=user,
            session=session,
            token_id="t-1",
            issued_at=asked.at.now,
            expires_at=asked.at.now.replace(minute=59),
        )
        asked.refused(asked.request(token))


async def test_an_expired_token_is_refused(asked: Asked) -> None:
    issued = await asked.at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    asked.at.pass_time(60)
    asked.refused(asked.request(issued.token))


async def test_the_log_has_the_reason_and_never_the_token(asked: Asked) -> None:
    issued = await asked.at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    user = asked.at.directory.of("acme").find("ann").user
    await asked.at.accounts.set_user_active(tenant="acme", handle="ann", active=False, reason=None)
    with capture_logs() as lines:
        asked.refused(asked.request(issued.token))
        asked.refused(asked.request(issued.token + "x"))
    assert lines[0] | {"log_level": "warning"} == {
        "event": "callout.refused",
        "log_level": "warning",
        "reason": "the user is disabled",
        "host": "10.0.0.9",
        "tenant": "acme",
        "user": user,
        "left_out": 0,
    }
    assert len(lines) == 2
    assert issued.token[:40] not in str(lines)


async def test_a_flood_of_refusals_writes_a_few_lines_and_says_how_many_it_left_out(asked: Asked) -> None:
    with capture_logs() as lines:
        for _ in range(50):
            asked.refused(asked.request("bad"))
        asked.at.pass_time(1)
        asked.refused(asked.request("bad"))
    assert [line["left_out"] for line in lines] == [0] * LINES_PER_SECOND + [50 - LINES_PER_SECOND]


async def test_an_unsealed_request_gets_no_answer(asked: Asked) -> None:
    claims = encode_claims(SERVER, {"aud": "nats-authorization-request", "nats": {}}, at=asked.at.now).encode()
    for headers in (None, {}, {"Nats-Server-Xkey": ""}, {"Nats-Server-Xkey": SERVER_XKEY.public}):
        with pytest.raises(BadClaims):
            asked.callout.answer(claims, headers)


@pytest.mark.parametrize(
    "changed",
    [
        {"type": "user"},
        {"server_id": {"id": SERVER.public, "xkey": XKey.create().public}},
        {"server_id": {"id": SignKey.create("server").public, "xkey": SERVER_XKEY.public}},
        {"server_id": "x"},
        {"user_nkey": None},
    ],
    ids=["type", "another xkey", "another server", "no server", "no user"],
)
async def test_a_request_that_contradicts_itself_gets_no_answer(asked: Asked, changed: dict[str, Any]) -> None:
    with pytest.raises(BadClaims):
        asked.callout.answer(asked.request("x", **changed), {"Nats-Server-Xkey": SERVER_XKEY.public})


@pytest.mark.parametrize("odd", [{"connect_opts": []}, {"connect_opts": None}, {"client_info": "x"}], ids=str)
async def test_odd_shapes_inside_a_request_are_refused_and_crash_nothing(asked: Asked, odd: dict[str, Any]) -> None:
    asked.refused(asked.request("x", **odd))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=300), st.none() | st.dictionaries(st.just("Nats-Server-Xkey"), st.text(max_size=70)))
async def test_garbage_is_only_ever_bad_claims(asked: Asked, data: bytes, headers: dict[str, str] | None) -> None:
    with pytest.raises(BadClaims):
        asked.callout.answer(data, headers)
    with pytest.raises(BadClaims):
        asked.callout.answer(SERVER_XKEY.seal(data, XKEY.public), {"Nats-Server-Xkey": SERVER_XKEY.public})
