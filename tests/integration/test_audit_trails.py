"""Trails over the bus, among the real services: shown to their owner, decided for others, verified, proved, checked."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from fixtures_nats import Bus, seen_by_server
from nats.aio.client import Client
from unit.audit.mongo_server import mongo_url
from unit.audit.recorded_home import accepted, authorize, complete

from remit_agent_runtime.domain import Run
from remit_audit import offline, verify_proof
from remit_audit.__main__ import build as build_audit
from remit_audit.settings import AuditSettings
from remit_auth.__main__ import build as build_auth
from remit_auth.settings import AuthSettings
from remit_chassis.permits import PermitSigner
from remit_chassis.service import Service
from remit_chassis.settings import ServiceSettings, read_hex_secret
from remit_contracts import subjects
from remit_credential_broker.__main__ import build as build_broker
from remit_credential_broker.settings import BrokerSettings
from remit_infra.streams import ensure_stream
from remit_policy.__main__ import build as build_policy
from remit_policy.settings import PolicySettings

__all__ = ["mongo_url"]

AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
READS_TRAILS = {"inherits": [], "permissions": [{"action": "trail.read", "type": "trail", "id": "*"}]}


class RuntimeSettings(ServiceSettings):
    """Of a runtime that only records."""

    service_name = "agent-runtime"


class Person:
    """A signed-in user's own connection."""

    def __init__(self, user: str, nc: Client) -> None:
        self.user = user
        self.nc = nc

    async def ask(self, verb: str, **fields: Any) -> Any:
        answer = await self.nc.request(
            subjects.command("acme", self.user, "audit", verb), orjson.dumps(fields), timeout=15
        )
        return orjson.loads(answer.data)


class Platform:
    """Auth, policy, broker and audit as they are; a runtime that records what it is told to.

    `settings` are for all of them alike.
    """

    def __init__(self, bus: Bus, mongo: str, **settings: Any) -> None:
        self.bus = bus
        where = {"home": bus.home.path, "nats_url": bus.url, **settings}
        self.broker = build_broker(BrokerSettings(**where))
        self.auth = build_auth(AuthSettings(**where))
        self.policy = build_policy(PolicySettings(**where))
        self.runtime = Service("agent-runtime", RuntimeSettings(**where))
        self.audit_settings = AuditSettings(**where, mongo_url=mongo, discover_seconds=0.2, silent_seconds=5.0)
        self.audit = build_audit(self.audit_settings)
        self.installer: Client
        self.people: dict[str, Person] = {}

    @property
    def services(self) -> list[Service]:
        return [self.broker, self.auth, self.policy, self.runtime, self.audit]

    async def open(self) -> None:
        await self.start()
        await self.register()

    async def start(self) -> None:
        self.installer = await self.bus.connect_as("installer")
        for stream in (subjects.RUNS_STREAM, *map(subjects.events_stream, ("platform", "acme"))):
            await ensure_stream(self.installer, stream)
        for service in self.services:
            await service.start()
        async with asyncio.timeout(30):
            for service in self.services:
                while not (await service.health()).ready:
                    await asyncio.sleep(0.02)

    async def register(self) -> None:
        await self.ask("auth", "create-tenant", name="Acme")
        await self.ask("auth", "define-role", name="reader", inherits=[], permissions=[])
        await self.ask("auth", "define-role", name="administrator", **READS_TRAILS)
        for handle, role in (("ann", "administrator"), ("bob", "reader"), ("cid", "reader")):
            user = (await self.ask("auth", "register-user", handle=handle, roles=[role]))["user"]
            issued = await self.ask("auth", "issue-token", handle=handle, ttl_seconds=600)
            nc = await self.bus.connect(token=issued["token"], inbox_prefix=f"_INBOX.acme.{user}.{issued['session']}")
            self.people[handle] = Person(user, nc)

    async def ask(self, service: str, verb: str, **fields: Any) -> Any:
        answer = await self.installer.request(
            subjects.rpc("acme", "system", service, verb), orjson.dumps(fields), timeout=30
        )
        answer = orjson.loads(answer.data)
        assert "error" not in answer, answer
        return answer

    async def run(self, handle: str, number: int) -> Run:
        return await self.run_of(self.people[handle].user, number)

    async def run_of(self, user: str, number: int) -> Run:
        run = accepted(user, number)
        run.start(at=AT)
        authorize(run, "acme", user, PermitSigner(read_hex_secret(self.bus.home.secrets / "permit.key")))
        complete(run)
        run.complete(answer=f"answer {number}", cpu_seconds=0.1, at=AT)
        await self.runtime.stores.of("acme").save(run, user=user)
        return run

    async def close(self) -> None:
        for person in self.people.values():
            await person.nc.close()
        for service in reversed(self.services):
            await service.shut_down()
        await self.installer.close()


@pytest.fixture
async def platform(nats_bus: Bus, mongo_url: str) -> AsyncIterator[Platform]:
    made = Platform(nats_bus, mongo_url)
    try:
        await made.open()
        yield made
    finally:
        await made.close()


def topics(page: Any) -> list[str]:
    return [entry["event"].partition(".")[2] for entry in page["entries"]]


async def test_a_user_s_own_trail_tells_what_has_just_happened_and_needs_no_role(platform: Platform) -> None:
    bob = platform.people["bob"]
    run = await platform.run("bob", 1)
    await platform.run("cid", 2)
    page = await bob.ask("show-trail")
    assert page["pending"] == 0
    assert {entry["user"] for entry in page["entries"]} == {bob.user}
    of_run = [entry for entry in page["entries"] if entry["service"] == "agent-runtime"]
    assert [entry["event"] for entry in of_run] == [
        "runtime.Run.Accepted",
        "runtime.Run.Started",
        "runtime.Run.ToolCallAuthorized",
        "runtime.Run.ToolCallCompleted",
        "runtime.Run.Metered",
        "runtime.Run.Completed",
    ]
    assert of_run[-1]["data"]["answer"] == "answer 1"
    assert {entry["run_id"] for entry in of_run} == {run.id.hex}
    assert page["checkpoint"].startswith("remit/acme\n")


async def test_reading_a_trail_is_itself_in_the_reader_s_trail(platform: Platform) -> None:
    bob = platform.people["bob"]
    await bob.ask("show-trail", limit=3)
    async with asyncio.timeout(10):
        while "TrailReading.Read" not in topics(page := await bob.ask("show-trail")):
            await asyncio.sleep(0.02)
    first = next(entry for entry in page["entries"] if entry["event"] == "audit.TrailReading.Read")
    assert {name: first["data"][name] for name in ("of", "purpose", "after", "limit", "decision")} == {
        "of": bob.user,
        "purpose": "show",
        "after": None,
        "limit": 3,
        "decision": {},
    }


async def test_no_reading_is_recorded_under_a_session_that_is_none_of_the_readers(
    nats_bus: Bus, mongo_url: str
) -> None:
    """The server lets a client name any reply subject: among real services, auth knows which sessions there are."""
    nats_bus.add_anyone()
    platform = Platform(nats_bus, mongo_url)
    try:
        await platform.open()
        anyone = await nats_bus.connect_as_anyone()
        ann, bob = platform.people["ann"], platform.people["bob"]
        ended = (await platform.ask("auth", "issue-token", handle="ann", ttl_seconds=60))["session"]
        await platform.ask("auth", "end-session", session=ended)
        before = platform.audit.stores.of("acme").head(), platform.policy.stores.of("acme").head()
        for session in ("s-never-was", ended):
            for verb, fields in (
                ("show-trail", {}),
                ("show-trail", {"of": "bob"}),
                ("show-trail", {"of": "nobody"}),
                ("verify-trail", {}),
                ("prove-entry", {"index": 0}),
            ):
                reply = f"_INBOX.acme.{ann.user}.{session}.x"
                heard = await anyone.subscribe(reply)
                await seen_by_server(anyone)
                command = subjects.command("acme", ann.user, "audit", verb)
                await ann.nc.publish(command, orjson.dumps(fields), reply=reply)
                answer = orjson.loads((await heard.next_msg(15)).data)
                assert answer["error"]["code"] == "auth.session_ended", (verb, fields, answer)
                await heard.unsubscribe()
        assert (platform.audit.stores.of("acme").head(), platform.policy.stores.of("acme").head()) == before
        assert "error" not in await bob.ask("show-trail")
        await anyone.close()
    finally:
        await platform.close()


async def test_another_s_trail_is_shown_by_a_decision_that_is_on_record(platform: Platform) -> None:
    ann, bob = platform.people["ann"], platform.people["bob"]
    await platform.run("bob", 1)
    for of in (bob.user, "bob", "acme/bob"):
        page = await ann.ask("show-trail", of=of)
        assert {entry["user"] for entry in page["entries"]} == {bob.user}
        answers = [entry["data"]["answer"] for entry in page["entries"] if entry["event"] == "runtime.Run.Completed"]
        assert answers == ["answer 1"]  # wherever it stands: services share no order
    async with asyncio.timeout(10):
        while topics(page := await ann.ask("show-trail")).count("TrailReading.Read") < 3:
            await asyncio.sleep(0.02)
    reading = next(entry["data"] for entry in page["entries"] if entry["event"] == "audit.TrailReading.Read")
    assert reading["of"] == bob.user
    assert reading["decision"]["decision"] is True
    assert reading["decision"]["decision_id"]


async def test_forbidden_and_absent_trails_answer_alike(platform: Platform) -> None:
    cid, ann = platform.people["cid"], platform.people["ann"]
    refusals = [
        await person.ask(verb, **fields)
        for person, of in (
            (cid, "bob"),
            (cid, platform.people["bob"].user),
            (cid, "nobody"),
            (ann, "nobody"),
            (ann, "globex/bob"),
        )
        for verb, fields in (
            ("show-trail", {"of": of}),
            ("verify-trail", {"of": of}),
            ("prove-entry", {"of": of, "index": 0}),
        )
    ]
    assert len({orjson.dumps(refusal) for refusal in refusals}) == 1
    assert refusals[0]["error"]["code"] == "absent"
    async with asyncio.timeout(10):
        while "Decision.Denied" not in topics(await cid.ask("show-trail")):
            await asyncio.sleep(0.02)


async def test_a_trail_comes_in_pages(platform: Platform) -> None:
    bob = platform.people["bob"]
    for number in range(1, 5):
        await platform.run("bob", number)
    whole = (await bob.ask("show-trail"))["entries"]
    paged: list[Any] = []
    after = None
    while True:
        page = await bob.ask("show-trail", limit=7, **({} if after is None else {"after": after}))
        paged += page["entries"]
        after = page["next"]
        if after is None:
            break
    assert paged[: len(whole)] == whole


async def test_a_trail_verifies_and_a_proof_holds_offline(platform: Platform) -> None:
    bob = platform.people["bob"]
    await platform.run("bob", 1)
    verified = await bob.ask("verify-trail")
    assert (verified["ok"], verified["faults"]) == (True, [])
    page = await bob.ask("show-trail")
    assert verified["entries"] >= len(page["entries"]) - 1
    key = read_hex_secret(platform.bus.home.path / "public" / "ledger.pub")
    for entry in page["entries"]:
        bundle = await bob.ask("prove-entry", index=entry["index"])
        assert f"entry {entry['index']} of" in verify_proof.verify(bundle, key)
    shown = await bob.ask("checkpoint")
    assert shown["public_key"] == key.hex()
    assert shown["size"] >= bundle["size"]
    foreign = next(
        index for index in range(bundle["size"]) if index not in {entry["index"] for entry in page["entries"]}
    )
    assert (await bob.ask("prove-entry", index=foreign))["error"]["code"] == "absent"


async def test_a_ledger_that_takes_no_events_passes_for_no_whole_trail(platform: Platform) -> None:
    """Its last entry is gone, so it contradicts its checkpoint; what it still has of bob verifies."""
    bob = platform.people["bob"]
    await platform.run("bob", 1)
    await platform.run("cid", 2)
    await settled(platform)
    await platform.audit.shut_down()
    with sqlite3.connect(platform.audit_settings.ledger_dir / "acme.sqlite") as db:
        db.execute("DELETE FROM entries WHERE idx = (SELECT max(idx) FROM entries)")
    db.close()
    platform.audit = build_audit(platform.audit_settings)
    await platform.audit.start()
    await seen_by_server(platform.audit.nc)
    refused = (await bob.ask("show-trail"))["error"]
    assert refused["code"] == "tampered.ledger"
    assert refused["reason"].startswith("the ledger of acme takes no events: ")
    verified = await bob.ask("verify-trail")
    assert verified["ok"] is False
    assert ("ledger", "checkpoint.contradicted", refused["reason"]) in [
        (fault["copy"], fault["code"], fault["reason"]) for fault in verified["faults"]
    ]
    acme = next(each for each in (await platform.ask("audit", "check"))["tenants"] if each["tenant"] == "acme")
    assert any(fault["reason"].startswith("it takes no events: ") for fault in acme["faults"])


async def test_ill_shaped_questions_are_refused(platform: Platform) -> None:
    bob = platform.people["bob"]
    for verb, fields in (
        ("show-trail", {"limit": 0}),
        ("show-trail", {"limit": 10**9}),
        ("show-trail", {"after": -1}),
        ("show-trail", {"user": "u-1"}),
        ("show-trail", {"of": "x" * 1000}),
        ("prove-entry", {}),
        ("prove-entry", {"index": "0"}),
        ("verify-trail", {"index": 0}),
    ):
        assert (await bob.ask(verb, **fields))["error"]["code"] == "request.malformed"
    assert (await bob.ask("show-trail", of="../../etc"))["error"]["code"] == "absent"


async def settled(platform: Platform) -> Any:
    """The report once everything stored has reached the ledger."""
    async with asyncio.timeout(20):
        while True:
            report = await platform.ask("audit", "check")
            if all(tenant["pending"] == 0 for tenant in report["tenants"]):
                return report


async def test_all_copies_agree_on_a_running_platform(platform: Platform) -> None:
    for number in range(1, 4):
        await platform.run("bob", number)
    report = await settled(platform)
    acme = next(tenant for tenant in report["tenants"] if tenant["tenant"] == "acme")
    assert (report["ok"], acme["faults"], acme["effects_checked"]) == (True, [], 6)
    assert acme["entries"] >= 18
    assert {name: acme["checked"][name] for name in ("ledger", "stream", "permits")} == dict.fromkeys(
        ("ledger", "stream", "permits"), True
    )
    assert {*acme["checked"]["stores"], *acme["checked"]["heads"]} == set(subjects.SERVICES)


async def test_a_ledger_that_is_gone_while_its_stream_is_there_is_a_fault(platform: Platform) -> None:
    await platform.run("bob", 1)
    await settled(platform)
    for path in (platform.bus.home.path / "ledger").glob("acme.*"):
        path.unlink()
    report = await platform.ask("audit", "check")
    acme = next(tenant for tenant in report["tenants"] if tenant["tenant"] == "acme")
    assert (report["ok"], acme["checked"]["ledger"]) == (False, False)
    (fault,) = acme["faults"]
    assert (fault["copy"], fault["code"]) == ("ledger", "file.damaged")
    assert "the stream EVENTS_acme tell" in fault["reason"]


async def test_a_byte_changed_in_a_copy_of_the_home_is_named_offline(platform: Platform, tmp_path: Path) -> None:
    import sqlite3

    await platform.run("bob", 1)
    await settled(platform)
    await platform.close()
    platform.people.clear()
    home = shutil.copytree(platform.bus.home.path, tmp_path / "copy")
    assert offline.audit_check(home)["ok"]
    assert offline.trail_verify(home, "acme/bob")["ok"]
    entries = offline.trail_show(home, "acme/bob")["entries"]  # of several services, in the ledger's order
    assert [entry["data"]["answer"] for entry in entries if "answer" in entry["data"]] == ["answer 1"]
    path = home / "store" / "agent-runtime" / "acme.sqlite"
    with sqlite3.connect(path) as db:
        state = db.execute("SELECT state FROM stored_events WHERE rowid = 4").fetchone()[0]
    db.close()
    raw = bytearray(path.read_bytes())
    raw[raw.index(state) + 30] ^= 1
    path.write_bytes(raw)
    report = offline.audit_check(home)
    assert [
        (tenant["tenant"], fault["copy"], fault["service"], fault["notification_id"], fault["code"])
        for tenant in report["tenants"]
        for fault in tenant["faults"]
    ] == [("acme", "store", "agent-runtime", 4, "record.altered")]


async def test_a_byte_changed_in_a_store_is_named_while_the_platform_runs(platform: Platform) -> None:
    import sqlite3

    await platform.run("bob", 1)
    await settled(platform)
    with sqlite3.connect(platform.bus.home.path / "store" / "agent-runtime" / "acme.sqlite") as db:
        db.execute("UPDATE stored_events SET state = zeroblob(40) WHERE rowid = 2")
    db.close()
    report = await platform.ask("audit", "check")
    faults = [fault for tenant in report["tenants"] for fault in tenant["faults"]]
    assert not report["ok"]
    assert ("store", "agent-runtime", 2, "record.altered") in {
        (fault["copy"], fault["service"], fault["notification_id"], fault["code"]) for fault in faults
    }


async def test_an_erased_user_s_trail_says_so_and_still_verifies(platform: Platform) -> None:
    from remit_chassis.vaultfile import VaultFile, load_master_key

    ann, bob = platform.people["ann"], platform.people["bob"]
    await platform.run("bob", 1)
    await ann.ask("show-trail", of="bob")
    home = platform.bus.home
    vault = VaultFile(home.path / "vault" / "vault.sqlite", load_master_key(home.secrets / "master.key"))
    vault.destroy_user_key("acme", bob.user)
    vault.close()
    for service in platform.services:
        service.user_keys.forget("acme", bob.user)
    page = await ann.ask("show-trail", of=bob.user)
    assert {orjson.dumps(entry["data"]) for entry in page["entries"]} == {b'"erased"'}
    assert (await ann.ask("verify-trail", of=bob.user))["ok"]
