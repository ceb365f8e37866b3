"""The audit service on a real bus, among services that are played: what does not come, comes twice, or comes changed."""

from __future__ import annotations

import asyncio
import shutil
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
import orjson
import pytest
from fixtures_nats import Bus
from nacl.public import PrivateKey, SealedBox
from nats.aio.client import Client
from nats.aio.msg import Msg
from structlog.testing import capture_logs
from unit.audit.chains import Chain

from remit_audit.__main__ import build
from remit_audit.alarms import Alarms
from remit_audit.findings import Finding
from remit_audit.ledger_reader import LedgerReader
from remit_audit.settings import AuditSettings
from remit_audit.states import open_state
from remit_audit.verification import verify_ledger
from remit_chassis.service import Service
from remit_chassis.settings import read_hex_secret
from remit_chassis.vaultfile import VaultFile, load_or_create_master_key
from remit_contracts import subjects
from remit_contracts.events import GENESIS, Envelope
from remit_infra.streams import ensure_stream

OTHERS = ("auth", "policy", "credential-broker", "agent-runtime")


class Played:
    """A service with its own nkey and a log in memory: it publishes what it is told to, and answers what audit asks."""

    def __init__(self, name: str, nc: Client) -> None:
        self.name = name
        self.nc = nc
        self.chain = Chain(name)
        self.log: list[Envelope] = []
        self.asked: list[tuple[int, int]] = []
        self.announced = 0
        self.head: tuple[int, bytes] | None = None
        self.silent = False
        self.withholds = False
        self._context = nc.jetstream()

    async def open(self) -> None:
        await self.nc.subscribe(subjects.any_request("rpc", self.name, "log-head"), cb=self._log_head)
        await self.nc.subscribe(subjects.any_request("rpc", self.name, "republish"), cb=self._republish)
        await self.nc.flush()

    def record(self, count: int, user: str = "u-1") -> list[Envelope]:
        """Store `count` events; publishing is another matter."""
        events = [self.chain.event(b"sealed %d" % number, user=user) for number in range(count)]
        self.log += events
        return events

    async def publish(self, *events: Envelope) -> None:
        for event in events:
            await self._publish(event)
            if event in self.log:
                self.announced = max(self.announced, event.notification_id)

    async def _publish(self, event: Envelope) -> None:
        """Until the stream has acknowledged it: a bus that was restarted takes a moment. Twice is no harm."""
        while True:
            try:
                await self._context.publish(event.subject, event.state, headers=event.to_headers(), timeout=1)
                return
            except (nats.errors.Error, nats.js.errors.Error):
                await asyncio.sleep(0.05)

    async def _log_head(self, message: Msg) -> None:
        if self.silent:
            return
        acme = message.subject.split(".")[1] == "acme"
        known = self.announced if acme else 0
        number, digest = self.head or (known, self.log[known - 1].hash if known else GENESIS)
        await message.respond(orjson.dumps({"last_notification_id": number, "head_hash": digest.hex()}))

    async def _republish(self, message: Msg) -> None:
        command = orjson.loads(message.data)
        self.asked.append((command["first"], command["last"]))
        if self.withholds:
            await message.respond(orjson.dumps({"published": 0}))
            return
        await self.publish(*self.log[command["first"] - 1 : command["last"]])
        await message.respond(orjson.dumps({"published": 1}))


class World:
    """The bus, the audit service and the services that are played."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        home = bus.home.path
        self.settings = AuditSettings(
            home=home,
            nats_url=bus.url,
            discover_seconds=0.1,
            heads_seconds=0.1,
            missing_seconds=2.0,
            silent_seconds=6.0,
        )
        self.vault = VaultFile(
            home / "vault" / "vault.sqlite", load_or_create_master_key(home / "secrets" / "master.key")
        )
        self.played: dict[str, Played] = {}
        self.audit: Service
        self.installer: Client

    async def open(self) -> None:
        self.installer = await self.bus.connect_as("installer", allow_reconnect=True, max_reconnect_attempts=-1)
        await ensure_stream(self.installer, subjects.events_stream("acme"))
        for name in OTHERS:
            nc = await self.bus.connect_as(
                name, allow_reconnect=True, max_reconnect_attempts=-1, reconnect_time_wait=0.1
            )
            self.played[name] = Played(name, nc)
            await self.played[name].open()
        await self.played["credential-broker"].nc.subscribe(
            subjects.any_request("rpc", "credential-broker", "user-key"), cb=self._user_key
        )
        await self.start()

    async def start(self) -> None:
        self.audit = build(self.settings)
        await self.audit.start()

    async def close(self) -> None:
        await self.audit.shut_down()
        for played in self.played.values():
            await played.nc.close()
        await self.installer.close()
        self.vault.close()

    async def ready(self) -> bool:
        return bool((await self.audit.health()).ready)

    def entries(self, tenant: str = "acme") -> list[tuple[str, int]]:
        """(service, notification id) of what the ledger has of the played services."""
        path = self.settings.ledger_dir / f"{tenant}.sqlite"
        if not path.with_suffix(".checkpoint").exists():
            return []
        reader = LedgerReader(path, tenant)
        try:
            found = [(entry.envelope.service, entry.envelope.notification_id) for entry in reader.following(-1, 10_000)]
        finally:
            reader.close()
        return [(service, number) for service, number in found if service != "audit"]

    def verified(self) -> list[str]:
        reader = LedgerReader(self.settings.ledger_dir / "acme.sqlite", "acme")
        try:
            key = read_hex_secret(self.bus.home.path / "public" / "ledger.pub")
            return [found.code for found in verify_ledger(reader, key).findings]
        finally:
            reader.close()

    async def alarms(self) -> list[tuple[str, str, int | None]]:
        """(code, service, notification id) of every alarm on record."""
        found = []
        for envelope in await self.audit.stores.of("acme").read(1, 10_000):
            data = open_state(envelope, self.vault.user_key("acme", envelope.user))
            assert (envelope.topic, envelope.user) == ("audit.Alarm.Raised", "system")
            found.append((data["code"], data["service"], data["notification_id"]))
        return found

    async def _user_key(self, message: Msg) -> None:
        _, tenant, user, *_ = message.subject.split(".")
        box = SealedBox(PrivateKey(read_hex_secret(self.bus.home.secrets / "box" / "audit.key")).public_key)
        sealed = b64encode(box.encrypt(self.vault.user_key(tenant, user))).decode()
        await message.respond(orjson.dumps({"sealed_key": sealed}))


async def until(holds: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait for a condition; fails when it does not come true."""
    async with asyncio.timeout(seconds):
        while True:
            value = holds()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.02)


@pytest.fixture
async def world(nats_bus: Bus) -> AsyncIterator[World]:
    made = World(nats_bus)
    await made.open()
    await until(made.ready)
    yield made
    await made.close()


def numbers(world: World, service: str) -> list[int]:
    return [number for whose, number in world.entries() if whose == service]


async def alarm(world: World, *expected: tuple[str, str, int | None]) -> None:
    async def raised() -> bool:
        return set(expected) <= set(await world.alarms())

    await until(raised)


async def test_every_service_s_events_come_into_the_ledger_in_order_and_only_once(world: World) -> None:
    for name in ("auth", "agent-runtime"):
        await world.played[name].publish(*world.played[name].record(40))
    await world.played["auth"].publish(*world.played["auth"].log[10:30])
    await until(lambda: len(world.entries()) == 80)
    await world.played["auth"].publish(*world.played["auth"].record(1))
    await until(lambda: len(world.entries()) == 81)
    assert numbers(world, "auth") == list(range(1, 42))
    assert numbers(world, "agent-runtime") == list(range(1, 41))
    assert world.verified() == []
    assert await world.alarms() == []


async def test_a_missing_range_is_asked_for_and_what_came_early_waits(world: World) -> None:
    auth = world.played["auth"]
    events = auth.record(10)
    with capture_logs() as logs:
        await auth.publish(*events[:3], *events[6:])
        await until(lambda: numbers(world, "auth") == list(range(1, 11)))
    assert auth.asked == [(4, 6)]
    asked = [line for line in logs if line["event"] == "audit.asked_again"]
    assert [(line["origin"], line["first_missing"], line["last_missing"]) for line in asked] == [("auth", 4, 6)]
    assert world.verified() == []
    assert await world.alarms() == []


async def test_what_stays_away_although_it_was_asked_for_is_an_alarm_and_still_wanted(world: World) -> None:
    auth = world.played["auth"]
    auth.withholds = True
    events = auth.record(10)
    await auth.publish(*events[:3], *events[6:])
    await alarm(world, ("record.missing", "auth", 4))
    assert numbers(world, "auth") == [1, 2, 3]
    auth.withholds = False
    await until(lambda: numbers(world, "auth") == list(range(1, 11)))
    assert world.verified() == []
    assert [found for found in await world.alarms() if found[0] == "record.missing"] == [("record.missing", "auth", 4)]


async def test_the_end_of_a_log_that_never_came_is_asked_for(world: World) -> None:
    auth = world.played["auth"]
    await auth.publish(*auth.record(3))
    auth.record(2)
    auth.announced = 5
    await until(lambda: numbers(world, "auth") == [1, 2, 3, 4, 5])
    assert auth.asked == [(4, 5)]
    assert await world.alarms() == []


async def test_the_end_of_a_log_that_stays_away_is_an_alarm(world: World) -> None:
    auth = world.played["auth"]
    await auth.publish(*auth.record(3))
    auth.record(2)
    auth.withholds, auth.announced = True, 5
    await alarm(world, ("record.missing", "auth", 4))
    assert numbers(world, "auth") == [1, 2, 3]


async def test_a_ledger_that_was_lost_is_an_alarm_and_filled_again(world: World) -> None:
    auth = world.played["auth"]
    await auth.publish(*auth.record(5))
    await until(lambda: len(world.entries()) == 5)
    await world.audit.shut_down()
    for path in world.settings.ledger_dir.glob("acme.*"):
        path.unlink()
    await world.start()
    await alarm(world, ("file.damaged", "", None))
    await until(lambda: numbers(world, "auth") == [1, 2, 3, 4, 5])
    assert world.verified() == []


async def test_a_second_event_under_a_number_is_a_fork(world: World) -> None:
    auth = world.played["auth"]
    (first,) = auth.record(1)
    rival = Chain("auth").event(b"another story")
    await auth.publish(first, rival)
    await alarm(world, ("record.forked", "auth", 1))
    assert numbers(world, "auth") == [1]


async def test_an_event_that_breaks_the_chain_is_witnessed_and_an_alarm(world: World) -> None:
    auth = world.played["auth"]
    first, second = auth.record(2)
    await auth.publish(first, msgspec.structs.replace(second, prev_hash=bytes(range(32))).sealed())
    await alarm(world, ("chain.broken", "auth", 2))
    assert numbers(world, "auth") == [1, 2]


async def test_a_message_that_is_no_intact_event_is_an_alarm_and_stops_nothing(world: World) -> None:
    auth = world.played["auth"]
    first, second = auth.record(2)
    await auth.publish(first)
    altered = {**second.to_headers(), "Remit-Topic": "auth.User.Disabled"}
    await auth.nc.jetstream().publish(second.subject, second.state, headers=altered)
    await auth.nc.jetstream().publish(second.subject, b"\xff", headers={"Status": "408", "Nats-Foo": "x"})
    await auth.publish(second)
    await until(lambda: numbers(world, "auth") == [1, 2])
    await alarm(world, ("record.altered", "", None))


async def test_a_service_that_says_nothing_is_an_alarm(world: World) -> None:
    world.played["policy"].silent = True
    await alarm(world, ("service.silent", "policy", None))
    assert {service for _, service, _ in await world.alarms()} == {"policy"}


async def test_a_log_that_went_backwards_or_is_another_one_is_an_alarm(world: World) -> None:
    auth, policy = world.played["auth"], world.played["policy"]
    await auth.publish(*auth.record(5))
    await policy.publish(*policy.record(5))
    await until(lambda: len(world.entries()) == 10)
    auth.head = (3, auth.log[2].hash)
    policy.head = (5, bytes(range(32)))
    await alarm(world, ("store.rewound", "auth", 4), ("record.forked", "policy", 5))


async def test_the_same_alarm_is_on_record_once_restarts_included(world: World) -> None:
    auth = world.played["auth"]
    (first,) = auth.record(1)
    await auth.publish(first, Chain("auth").event(b"another story"))
    await alarm(world, ("record.forked", "auth", 1))
    await world.audit.shut_down()
    await world.start()
    await auth.publish(Chain("auth").event(b"another story"))
    await auth.publish(*auth.record(1))
    await until(lambda: numbers(world, "auth") == [1, 2])
    assert (await world.alarms()).count(("record.forked", "auth", 1)) == 1


async def test_what_arrived_while_the_service_was_away_is_taken_when_it_is_back(world: World) -> None:
    auth = world.played["auth"]
    await auth.publish(*auth.record(20))
    await until(lambda: len(world.entries()) == 20)
    await world.audit.shut_down()
    await auth.publish(*auth.record(20))
    assert len(world.entries()) == 20
    await world.start()
    await until(lambda: len(world.entries()) == 40)
    assert world.verified() == []


async def test_a_tenant_that_comes_later_is_followed_too(world: World) -> None:
    await ensure_stream(world.installer, subjects.events_stream("globex"))
    chain = Chain("auth", "globex")
    await world.played["auth"].publish(*chain.events(3))

    await until(lambda: len(world.entries("globex")) == 3)


async def test_a_tenants_ledger_is_begun_before_its_first_event_when_asked_for(world: World) -> None:
    async def follow(tenant: str) -> Any:
        asked = subjects.rpc(tenant, "system", "audit", "follow")
        return orjson.loads((await world.installer.request(asked, b"{}", timeout=5)).data)

    assert (await follow("initech"))["error"]["code"] == "absent", "there is no stream yet"
    await ensure_stream(world.installer, subjects.events_stream("initech"))
    assert await follow("initech") == {"tenant": "initech", "entries": 0}
    assert (world.settings.ledger_dir / "initech.sqlite").exists()
    await world.played["auth"].publish(Chain("auth", "initech").event(b"x"))
    await until(lambda: world.entries("initech") == [("auth", 1)])
    assert await follow("initech") == {"tenant": "initech", "entries": 1}


async def test_a_stream_that_lets_events_be_deleted_keeps_the_service_from_being_ready(nats_bus: Bus) -> None:
    world = World(nats_bus)
    async with nats_bus.client("installer") as installer:
        name = subjects.events_stream("globex")
        config = {
            "name": name,
            "subjects": [subjects.events_of_tenant("globex")],
            "storage": "file",
            "allow_rollup_hdrs": True,
        }
        answer = orjson.loads((await installer.request(f"$JS.API.STREAM.CREATE.{name}", orjson.dumps(config))).data)
        assert "error" not in answer
    await world.open()
    try:
        report = await until(lambda: _streams_fault(world))
        assert "deny_delete" in report
        assert "allow_rollup_hdrs" in report
        assert not await world.ready()
    finally:
        await world.close()


async def _streams_fault(world: World) -> str:
    check = (await world.audit.health()).checks["streams"]
    return check.detail if "deny" in check.detail else ""


async def test_an_alarm_that_a_damaged_store_cannot_keep_holds_up_no_other_tenants(world: World) -> None:
    world.audit.stores.of("acme").condemn("damaged")
    alarms = Alarms(world.audit)
    for tenant in ("acme", "globex"):
        await alarms.raise_(tenant, Finding("store", "record.altered", "a byte was changed"))
    assert world.audit.stores.of("acme").head().notification_id == 0
    assert world.audit.stores.of("globex").head().notification_id == 1


async def test_a_ledger_that_contradicts_its_checkpoint_takes_nothing_and_says_so(world: World) -> None:
    import sqlite3

    auth = world.played["auth"]
    await auth.publish(*auth.record(5))
    await until(lambda: len(world.entries()) == 5)
    await world.audit.shut_down()
    with sqlite3.connect(world.settings.ledger_dir / "acme.sqlite") as db:
        db.execute("DELETE FROM entries WHERE idx = 4")
    db.close()
    await world.start()
    await alarm(world, ("checkpoint.contradicted", "", None))
    await auth.publish(*auth.record(1))
    assert not await world.ready()
    assert numbers(world, "auth") == [1, 2, 3, 4]


async def test_a_check_that_a_service_does_not_answer_does_not_say_that_all_is_well(world: World) -> None:
    auth, policy = world.played["auth"], world.played["policy"]
    await auth.publish(*auth.record(3))
    await until(lambda: len(world.entries()) == 3)

    async def check() -> tuple[bool, list[str]]:
        subject = subjects.rpc("platform", "system", "audit", "check")
        report = orjson.loads((await world.installer.request(subject, b'{"tenant": "acme"}', timeout=30)).data)
        (acme,) = report["tenants"]
        assert acme["faults"] == []
        return report["ok"], acme["unchecked"]

    assert await check() == (True, [])
    policy.silent = True
    assert await check() == (False, ["the store of policy: it did not say how far its log goes"])


def stop_and_swap(world: World, kept: Path, part: str) -> None:
    """Stop the bus, put an older copy of (a part of) acme's stream in its place, start it again."""
    world.bus.stop()
    (stream,) = world.bus.home.bus.glob(f"js/jetstream/*/streams/{subjects.events_stream('acme')}")
    shutil.rmtree(stream / part)
    shutil.copytree(kept / part, stream / part)
    world.bus.start()


async def test_a_stream_that_went_backwards_is_noticed_and_filled_again(world: World, tmp_path: Path) -> None:
    auth = world.played["auth"]
    await auth.publish(*auth.record(10))
    await until(lambda: len(world.entries()) == 10)
    world.bus.stop()
    (stream,) = world.bus.home.bus.glob(f"js/jetstream/*/streams/{subjects.events_stream('acme')}")
    shutil.copytree(stream, tmp_path / "kept")
    world.bus.start()
    await auth.publish(*auth.record(10))
    await until(lambda: len(world.entries()) == 20)
    await until(lambda: _mark(world) >= 20)
    stop_and_swap(world, tmp_path / "kept", "msgs")
    await alarm(world, ("stream.rewound", "", None))
    await until(lambda: auth.asked)
    assert auth.asked[0] == (11, 20)
    await alarm(world, ("record.missing", "auth", 11))  # the stream lacks what the ledger has: at once
    await auth.publish(*auth.record(3))
    await until(lambda: len(world.entries()) == 23)
    assert numbers(world, "auth") == list(range(1, 24))


def _mark(world: World) -> int:
    import sqlite3

    with sqlite3.connect(world.settings.ledger_dir / "acme.sqlite") as db:
        row = db.execute("SELECT value FROM meta WHERE name = 'stream'").fetchone()
    db.close()
    return int(orjson.loads(row[0].split("\n")[1])["last"]) if row else 0


async def test_a_stream_that_was_made_anew_is_noticed_and_filled_again(world: World) -> None:
    auth = world.played["auth"]
    await auth.publish(*auth.record(5))
    await until(lambda: len(world.entries()) == 5)
    await until(lambda: _mark(world) >= 5)
    name = subjects.events_stream("acme")
    await world.installer.request(f"$JS.API.STREAM.DELETE.{name}", b"")
    await ensure_stream(world.installer, name)
    await alarm(world, ("stream.replaced", "", None))
    await until(lambda: (1, 5) in auth.asked)
    await auth.publish(*auth.record(2))
    await until(lambda: numbers(world, "auth") == [1, 2, 3, 4, 5, 6, 7])
