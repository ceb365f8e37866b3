"""The auth service as a whole, on a real bus: seeded by the installer, asked by policy and by users' clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import nats.errors
import orjson
import pytest
from fixtures_nats import Bus
from integration.auth_platform import ADMINISTRATOR, Platform

from remit_auth.__main__ import main
from remit_contracts import subjects
from remit_contracts.errors import NotSignedIn


@pytest.fixture
async def platform(nats_bus: Bus) -> AsyncIterator[Platform]:
    made = Platform(nats_bus)
    await made.open()
    await made.seed()
    yield made
    await made.close()


async def test_a_user_with_a_token_asks_who_it_is(platform: Platform) -> None:
    issued = await platform.ok("issue-token", {"handle": "ann", "ttl_seconds": 60})
    user = (await platform.ok("resolve", {"handle": "ann"}))["user"]
    ann = await platform.client(issued["token"], issued["session"])
    answer = await ann.request(subjects.command("acme", user, "auth", "whoami"), b"{}", timeout=5)
    await ann.close()
    assert orjson.loads(answer.data) == {
        "tenant": "acme",
        "user": user,
        "session": issued["session"],
        "handle": "ann",
        "roles": ["administrator"],
        "inbox_prefix": f"_INBOX.acme.{user}.{issued['session']}",
        "command_prefix": f"remit.acme.{user}.cmd",
    }


async def test_policy_is_told_of_a_user_and_of_the_tenants_roles(platform: Platform) -> None:
    user = (await platform.ok("resolve", {"handle": "ann"}))["user"]
    async with platform.bus.asking_as("policy") as policy:
        subject = orjson.loads(await policy.ask(subjects.rpc("acme", user, "auth", "describe-subject"), b"{}"))
        tenant = orjson.loads(await policy.ask(subjects.rpc("acme", "system", "auth", "describe-tenant"), b"{}"))
    assert subject == {
        "user": user,
        "handle": "ann",
        "active": True,
        "roles": ["administrator"],
        "revision": tenant["revision"],
    }
    assert tenant["active"]
    assert tenant["roles"] == {"reader": {"inherits": [], "permissions": []}, "administrator": ADMINISTRATOR}
    assert tenant["closure"] == {"reader": ["reader"], "administrator": ["administrator", "reader"]}
    assert tenant["protected_fields"] == {"sql": ["tailnum"]}


async def test_a_service_that_asks_is_told_of_a_session_that_stands_and_of_no_other(platform: Platform) -> None:
    issued = await platform.ok("issue-token", {"handle": "ann", "ttl_seconds": 60})
    short = await platform.ok("issue-token", {"handle": "ann", "ttl_seconds": 1})
    ann = await platform.user()
    await platform.ok("register-user", {"handle": "bob"})
    async with platform.bus.asking_as("agent-runtime") as runtime:

        async def described(session: str, user: str = ann) -> Any:
            question = orjson.dumps({"session": session})
            return orjson.loads(await runtime.ask(subjects.rpc("acme", user, "auth", "describe-session"), question))

        told = await described(issued["session"])
        assert told["session"] == issued["session"]
        assert datetime.fromisoformat(told["expires_at"]) == datetime.fromisoformat(issued["expires_at"])
        for session, user in (("s-never-was", ann), (issued["session"], await platform.user("bob"))):
            with pytest.raises(NotSignedIn, match="never this user's") as refused:
                await described(session, user)
            assert (refused.value.refusal_code, refused.value.exit_code) == ("auth.session_ended", 7)

        async def until_refused() -> None:
            async with asyncio.timeout(10):
                while True:
                    await described(short["session"])

        with pytest.raises(NotSignedIn, match="has run out"):
            await until_refused()
        await platform.ok("end-session", {"session": issued["session"]})
        with pytest.raises(NotSignedIn, match="has ended"):
            await described(issued["session"])


async def test_a_disabled_user_is_told_to_policy_and_refused_at_the_door(platform: Platform) -> None:
    issued = await platform.ok("issue-token", {"handle": "ann", "ttl_seconds": 60})
    user = (await platform.ok("resolve", {"handle": "ann"}))["user"]
    async with platform.bus.client("policy") as policy, platform.bus.asking_as("policy") as asking:
        notices = await policy.subscribe(subjects.any_live("directory"))
        await policy.flush()
        row = await platform.ok("set-user-active", {"handle": "ann", "active": False, "reason": "left"})
        assert not row["active"]
        notice = await notices.next_msg(timeout=5)
        described = orjson.loads(await asking.ask(subjects.rpc("acme", user, "auth", "describe-subject"), b"{}"))
    assert notice.subject == f"remit.acme.{user}.live.directory"
    assert orjson.loads(notice.data) == {"revision": described["revision"]}
    assert described["active"] is False
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await platform.client(issued["token"], issued["session"])
    assert (await platform.ask("issue-token", {"handle": "ann"}))["error"]["code"] == "auth.inactive"


async def test_what_was_recorded_is_known_again_after_a_restart(platform: Platform) -> None:
    issued = await platform.ok("issue-token", {"handle": "ann", "ttl_seconds": 60})
    before = [await platform.ok(verb, {}) for verb in ("describe-tenant", "list-users", "list-roles")]
    await platform.service.shut_down()
    await platform.start()
    await platform.ready()
    assert [await platform.ok(verb, {}) for verb in ("describe-tenant", "list-users", "list-roles")] == before
    ann = await platform.client(issued["token"], issued["session"])
    await ann.close()


async def test_without_the_users_keys_nobody_is_let_in_and_nothing_is_answered_until_they_are_back(
    platform: Platform,
) -> None:
    issued = await platform.ok("issue-token", {"handle": "ann", "ttl_seconds": 60})
    await platform.service.shut_down()
    await platform.close_keys()
    await platform.start()
    health = await platform.service.health()
    assert not health.checks["callout"].ok
    assert (await platform.ask("resolve", {"handle": "ann"}))["error"]["code"] == "unavailable"
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await platform.bus.connect(token=issued["token"], connect_timeout=20)  # the server itself waits for two
    await platform.open_keys()
    await platform.ready()
    ann = await platform.client(issued["token"], issued["session"])
    await ann.close()


@pytest.mark.parametrize(
    ("verb", "payload", "code"),
    [
        ("register-user", {"handle": "ann"}, "conflict.handle_taken"),
        ("register-user", {"handle": "u-1"}, "request.malformed"),
        ("register-user", {"handle": "bob", "roles": ["king"]}, "absent.role"),
        ("register-user", {"handle": "bob", "user": "u-1"}, "request.malformed"),
        ("assign-role", {"handle": "nobody", "role": "reader"}, "absent"),
        ("assign-role", {"handle": "ann", "role": "аdministrator"}, "request.malformed"),
        ("remove-role", {"handle": "ann", "role": "reader"}, "absent.role"),
        ("define-role", {"name": "reader", "inherits": ["administrator"]}, "conflict.role_cycle"),
        ("define-role", {"name": "x", "permissions": [{"action": "*", "type": "*", "id": "*"}]}, "request.malformed"),
        ("create-tenant", {}, "conflict.tenant_exists"),
        ("issue-token", {"handle": "ann", "ttl_seconds": 0}, "request.malformed"),
        ("issue-token", {"handle": "ann", "ttl_seconds": 10**9}, "request.malformed"),
        ("issue-token", {"handle": "nobody"}, "absent"),
        ("end-session", {"session": "s-unknown"}, "absent"),
        ("resolve", {"handle": "nobody"}, "absent"),
        ("list-tenants", {}, "policy.denied"),
    ],
)
async def test_what_cannot_be_is_refused_with_a_code(
    platform: Platform, verb: str, payload: dict[str, Any], code: str
) -> None:
    assert (await platform.ask(verb, payload))["error"]["code"] == code


async def test_administration_is_refused_in_a_users_name(platform: Platform) -> None:
    user = (await platform.ok("resolve", {"handle": "ann"}))["user"]
    for verb, payload in (
        ("issue-token", {"handle": "ann"}),
        ("assign-role", {"handle": "ann", "role": "reader"}),
        ("define-role", {"name": "reader", "inherits": [], "permissions": []}),
        ("describe-tenant", {}),
    ):
        assert (await platform.ask(verb, payload, user=user))["error"]["code"] == "policy.denied"


async def test_reserved_and_unknown_tenants_are_refused(platform: Platform) -> None:
    assert (await platform.ask("create-tenant", {}, tenant="platform"))["error"]["code"] == "request.malformed_id"
    assert (await platform.ask("register-user", {"handle": "bob"}, tenant="globex"))["error"]["code"] == "absent"
    await platform.ok("create-tenant", {}, tenant="globex")
    listed = await platform.ok("list-tenants", {}, tenant="platform")
    assert listed["tenants"] == [
        {"tenant": "acme", "active": True, "users": 1},
        {"tenant": "globex", "active": True, "users": 0},
    ]


async def test_users_are_listed_in_pages(platform: Platform) -> None:
    for handle in ("bob", "cid"):
        await platform.ok("register-user", {"handle": handle})
    first = await platform.ok("list-users", {"limit": 2})
    last = await platform.ok("list-users", {"after": first["next"], "limit": 2})
    assert [row["handle"] for row in (*first["users"], *last["users"])] == ["ann", "bob", "cid"]
    assert (first["next"], last["next"]) == ("bob", None)


def test_the_service_does_not_start_beside_an_oidc_issuer(nats_bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMIT_HOME", str(nats_bus.home.path))
    monkeypatch.setenv("REMIT_AUTH_OIDC_ISSUER", "https://idp.acme.test")
    with pytest.raises(SystemExit, match=r"built-in issuer .* https://idp\.acme\.test"):
        main()


def test_the_service_does_not_start_with_a_damaged_key_file_and_does_not_show_it(
    nats_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = nats_bus.home.secrets / "callout-xkey.nk"
    secret = damaged.read_text().strip()
    damaged.write_text(secret[:-1])
    monkeypatch.setenv("REMIT_HOME", str(nats_bus.home.path))
    with pytest.raises(SystemExit, match=r"callout-xkey\.nk holds no readable nkey seed") as refusal:
        main()
    assert secret[:-1] not in str(refusal.value)
