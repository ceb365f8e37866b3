"""Connections: who may add, see, test and revoke which, and that a secret comes out nowhere."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import ValidationError
from unit.credential_broker.brokers import ALICE, BOB, CANARY, GUS, Broker, Clocks, running

from remit_contracts.connections import AddConnection, split_host
from remit_contracts.errors import Absent, Conflict, Denied, MalformedCommand
from remit_contracts.leases import LeaseRefused
from remit_credential_broker.domain import Connection, ConnectionRevoked
from remit_credential_broker.probe import ProbeResult


def rows(broker: Broker, caller: Any) -> list[tuple[str, bool, str]]:
    return [(row.name, row.shared, row.status) for row in broker.connections.list(caller).connections]


async def test_adding_records_the_decision_and_never_the_secret(broker: Broker) -> None:
    shown = await broker.connect(hosts=("desk.example:443",), scopes=("read",))
    assert (shown.name, shown.shared, shown.status, shown.hosts) == ("desk", False, "active", ("desk.example:443",))
    assert broker.decided == [("u-alice", "connection.add", "desk")]
    (added,) = await broker.events(topic=Connection.Added.TOPIC)
    assert added.decision["decision_id"] == "d-1"
    assert (added.owner, added.added_by) == ("u-alice", "u-alice")


async def test_a_denied_connection_leaves_nothing_behind(broker: Broker, tmp_path: Path) -> None:
    broker.denied = {"connection.add"}
    with pytest.raises(Denied):
        await broker.connect()
    assert rows(broker, ALICE) == []
    assert await broker.events() == []
    assert broker.vault._database.execute("SELECT count(*) FROM secrets").fetchone() == (0,)


async def test_sharing_is_another_decision_than_adding(broker: Broker) -> None:
    broker.denied = {"connection.share"}
    with pytest.raises(Denied):
        await broker.connect(shared=True)
    await broker.connect()
    assert broker.decided == [("u-alice", "connection.share", "desk"), ("u-alice", "connection.add", "desk")]


async def test_one_sees_ones_own_and_the_tenants(broker: Broker) -> None:
    await broker.connect(ALICE, name="mine")
    await broker.connect(BOB, name="his")
    await broker.connect(BOB, name="ours", shared=True)
    await broker.connect(GUS, name="theirs", shared=True)
    assert rows(broker, ALICE) == [("mine", False, "active"), ("ours", True, "active")]
    for name in ("his", "theirs", "none"):
        with pytest.raises(Absent) as refusal:
            broker.connections.show(name, ALICE)
        assert refusal.value.refusal_code == "absent.connection"


async def test_somebody_elses_connection_is_neither_tested_nor_revoked(broker: Broker) -> None:
    await broker.connect(BOB)
    with pytest.raises(Absent):
        await broker.connections.revoke("desk", ALICE)
    with pytest.raises(Absent):
        await broker.connections.test("desk", "/", ALICE)
    assert broker.probes == []
    assert broker.connections.show("desk", BOB).status == "active"


async def test_a_name_stands_for_one_credential(broker: Broker) -> None:
    """Else a lease would fall back from one's own to a shared one, or the other way round, without a word."""
    await broker.connect(ALICE)
    for caller, shared in ((ALICE, False), (BOB, True)):
        with pytest.raises(Conflict) as refusal:
            await broker.connect(caller, shared=shared)
        assert refusal.value.refusal_code == "conflict.connection_taken"
    await broker.connections.revoke("desk", ALICE)
    await broker.connect(BOB, shared=True)
    with pytest.raises(Conflict, match="the tenant has"):
        await broker.connect(ALICE)


async def test_two_brokers_cannot_both_add_one_name(tmp_path: Path, clocks: Clocks) -> None:
    async with running(tmp_path, clocks) as first, running(tmp_path, clocks) as second:
        await first.connect(secret="sk-of-the-first")
        with pytest.raises(Conflict):
            await second.connect(secret="sk-of-the-second")
        assert second.opened(await second.lease(second.permit())).secret == "sk-of-the-first"
        assert first.vault._database.execute("SELECT count(*) FROM secrets").fetchone() == (1,)


async def test_revoking_destroys_the_secret_and_a_new_one_can_be_added(broker: Broker) -> None:
    await broker.connect(secret="sk-old")
    await broker.connections.revoke("desk", ALICE)
    assert broker.vault._database.execute("SELECT count(*) FROM secrets").fetchone() == (0,)
    with pytest.raises(ConnectionRevoked):
        await broker.connections.revoke("desk", ALICE)
    with pytest.raises(ConnectionRevoked):
        await broker.connections.test("desk", "/", ALICE)
    await broker.connect(secret="sk-new")
    assert broker.opened(await broker.lease(broker.permit())).secret == "sk-new"


async def test_a_shared_one_is_tested_and_revoked_by_those_who_may_share(broker: Broker) -> None:
    await broker.connect(BOB, shared=True)
    broker.denied = {"connection.share"}
    with pytest.raises(Denied):
        await broker.connections.revoke("desk", ALICE)
    with pytest.raises(Denied):
        await broker.connections.test("desk", "/", ALICE)
    assert broker.probes == []
    broker.denied = set()
    assert (await broker.connections.revoke("desk", BOB)).status == "revoked"


async def test_a_connection_without_a_host_is_kept_and_its_secret_sent_nowhere(broker: Broker) -> None:
    assert (await broker.connect(hosts=())).hosts == ()
    with pytest.raises(Conflict) as refusal:
        await broker.connections.test("desk", "/", ALICE)
    assert refusal.value.refusal_code == "conflict.connection_without_host"
    assert broker.probes == []
    assert [event.TOPIC for event in await broker.events()] == ["broker.Connection.Added"]


async def test_a_test_is_recorded_before_and_after_and_tells_the_outcome(broker: Broker, clocks: Clocks) -> None:
    await broker.connect()
    tested = await broker.connections.test("desk", "/me", ALICE)
    assert (tested.ok, tested.status, tested.host, tested.path) == (True, 200, "127.0.0.1:8080", "/me")
    assert broker.probes == [("127.0.0.1:8080", "/me", CANARY)]
    topics = [event.TOPIC for event in await broker.events()]
    assert topics == ["broker.Connection.Added", "broker.Connection.TestStarted", "broker.Connection.Tested"]
    broker.probe_result = ProbeResult(401, None)
    assert not (await broker.connections.test("desk", "/", ALICE)).ok
    shown = broker.connections.show("desk", ALICE)
    assert (shown.last_test_ok, shown.last_tested_at) == (False, clocks.now)


async def test_everything_is_as_before_after_a_restart(tmp_path: Path, clocks: Clocks) -> None:
    async with running(tmp_path, clocks) as broker:
        await broker.connect(name="kept")
        await broker.connect(name="gone")
        await broker.connections.revoke("gone", ALICE)
        await broker.connections.test("kept", "/", ALICE)
        await broker.connect(BOB, name="ours", shared=True)
        before = broker.connections.list(ALICE)
    async with running(tmp_path, clocks) as broker:
        assert broker.connections.list(ALICE) == before
        await broker.connect(name="gone")
        assert broker.connections.show("gone", ALICE).status == "active"


async def test_a_destruction_that_was_cut_short_is_finished_at_the_next_start(tmp_path: Path, clocks: Clocks) -> None:
    async with running(tmp_path, clocks) as broker:
        await broker.connect()

        async def die(*_: str) -> None:
            raise KeyboardInterrupt

        broker.secrets.destroy = die  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            await broker.connections.revoke("desk", ALICE)
    async with running(tmp_path, clocks) as broker:
        assert broker.vault._database.execute("SELECT count(*) FROM secrets").fetchone() == (0,)


async def test_an_erased_users_connections_are_gone_and_the_others_stay(tmp_path: Path, clocks: Clocks) -> None:
    async with running(tmp_path, clocks) as broker:
        await broker.connect(ALICE)
        await broker.connect(ALICE, name="ours", shared=True)
        broker.vault.destroy_user_key("acme", "u-alice")
    async with running(tmp_path, clocks) as broker:
        assert rows(broker, ALICE) == [("ours", True, "active")]
        assert broker.opened(await broker.lease(broker.permit(BOB, "ours"), BOB, connection="ours")).secret == CANARY


@pytest.mark.parametrize("sealed", ["", "not base64!", base64.b64encode(b"x" * 80).decode(), "é"])
async def test_what_was_not_sealed_to_the_broker_is_refused(broker: Broker, sealed: str) -> None:
    with pytest.raises((MalformedCommand, ValidationError)):
        await broker.connect(sealed_secret=sealed)


@pytest.mark.parametrize("secret", ["", "two words", "line\r\nX-Admin: 1", "tab\t", "schlüssel", "x" * 4097])
async def test_a_secret_that_is_no_bearer_token_is_refused_without_showing_it(broker: Broker, secret: str) -> None:
    with pytest.raises(MalformedCommand) as refusal:
        await broker.connect(secret=secret)
    assert refusal.value.refusal_code == "request.bad_secret"
    assert not secret or secret not in refusal.value.reason


HOSTS = ["desk.example:443", "127.0.0.1:8080", "[::1]:443", "localhost:1"]
NO_HOSTS = [
    "desk.example",
    "desk.example:0",
    "desk.example:65536",
    "*.example:443",
    "Desk.example:443",
    "user@desk.example:443",
    "desk.example:443/path",
    "desk..example:443",
    "desk.example:443\n",
    "dеsk.example:443",
    " desk.example:443",
    "https://desk.example:443",
]


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_a_name_or_address_and_a_port(host: str) -> None:
    assert ":".join(map(str, split_host(host))) == host


@pytest.mark.parametrize(
    "changes",
    [{"hosts": (host,)} for host in NO_HOSTS]
    + [
        {"hosts": ("a.example:1",) * 2},
        {"hosts": tuple(f"h{n}.example:1" for n in range(11))},
        {"scopes": ("two words",)},
        {"scopes": ("",)},
        {"kind": "oauth2"},
        {"name": "Desk"},
        {"name": "desk\n"},
        {"owner": "u-bob"},
        {"shared": "yes"},
    ],
)
def test_a_bad_field_of_a_connection_is_refused_without_showing_the_secret(changes: dict[str, Any]) -> None:
    told = {"name": "desk", "kind": "bearer", "sealed_secret": "c2VhbGVk", "hosts": ("a.example:1",), **changes}
    with pytest.raises(ValidationError) as refusal:
        AddConnection(**told)
    assert "c2VhbGVk" not in repr([{k: v for k, v in e.items() if k != "input"} for e in refusal.value.errors()])


async def test_a_canary_is_found_in_no_event_answer_log_or_file(tmp_path: Path, clocks: Clocks) -> None:
    """Added, tested, leased, refused, revoked: then everything that was said or written is searched."""
    said: list[Any] = []
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path, clocks) as broker:
            said.append(await broker.connect())
            said.append(await broker.connections.test("desk", "/", ALICE))
            lease = await broker.lease(broker.permit())
            with pytest.raises(LeaseRefused) as refusal:
                await broker.lease(broker.permit(BOB), BOB)
            said += [lease, refusal.value.as_dict(), broker.connections.list(ALICE), repr(broker.opened(lease))]
            assert broker.opened(lease).secret == CANARY
            await broker.lease_records.settled()
            said += [await broker.history.newest(ALICE, 10), [vars(event) for event in await broker.events()]]
            said += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
            said.append(await broker.connections.revoke("desk", ALICE))
    said += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    haystack = repr((said, logs))
    for needle in forms(CANARY):
        assert needle not in haystack
    assert "desk" in haystack


def forms(secret: str) -> list[str]:
    """The secret as it is, in hex, and in base64 at each of the three places where it can begin."""
    encoded = [base64.b64encode(b"x" * shift + secret.encode()).decode()[shift + 1 : -4] for shift in range(3)]
    return [secret, secret.encode().hex(), *encoded]


def test_the_search_would_find_a_canary_in_base64() -> None:
    for shift in range(3):
        text = base64.b64encode(b"y" * shift + f"Bearer {CANARY} and more".encode()).decode()
        assert any(form in text for form in forms(CANARY))
