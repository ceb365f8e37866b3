"""Given events, when command, then events; and events as they were first written, which must be read for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from eventsourcing.persistence import Mapper, StoredEvent

from remit_chassis.eventstore.transcoder import StateTranscoder
from remit_credential_broker.domain import Connection, ConnectionRevoked
from remit_credential_broker.leases import Lease, LeaseRefusal

T0 = datetime(2030, 1, 1, 9, 30, tzinfo=UTC)
T1 = T0 + timedelta(seconds=10)
ID = Connection.id_of("acme", "u-1", "desk", generation=1)


def added() -> Connection:
    connection = Connection.add(
        connection_id=ID,
        owner="u-1",
        name="desk",
        kind="bearer",
        hosts=("desk.example:443",),
        scopes=("read",),
        secret_id=UUID(int=7),
        added_by="u-1",
        decision={"decision_id": "d-1"},
        at=T0,
    )
    connection.collect_events()
    return connection


def issued() -> Lease:
    lease = Lease.issue(
        lease_id=Lease.id_of("acme", "j-1"),
        jti="j-1",
        session="s-1",
        run="a" * 32,
        ordinal=3,
        tool="weather-desk",
        connection="desk",
        connection_id=ID.hex,
        scopes=("read",),
        ttl_seconds=30.0,
        at=T0,
    )
    lease.collect_events()
    return lease


def test_a_connection_is_revoked_once() -> None:
    connection = added()
    connection.revoke(by="u-1", decision=None, at=T1)
    (event,) = connection.collect_events()
    assert (type(event), event.by, connection.active, connection.revoked_at) == (Connection.Revoked, "u-1", False, T1)
    with pytest.raises(ConnectionRevoked):
        connection.revoke(by="u-1", decision=None, at=T1)
    with pytest.raises(ConnectionRevoked):
        connection.start_test(host="desk.example:443", path="/", by="u-1", decision=None, at=T1)
    assert connection.collect_events() == []


def test_a_test_that_was_under_way_at_the_revocation_is_still_recorded() -> None:
    connection = added()
    connection.start_test(host="desk.example:443", path="/", by="u-1", decision=None, at=T0)
    connection.revoke(by="u-1", decision=None, at=T0)
    connection.finish_test(status=401, fault=None, ok=False, at=T1)
    assert (connection.last_tested_at, connection.last_test_ok) == (T1, False)


def test_ids_differ_by_tenant_owner_name_and_generation() -> None:
    places = [("acme", "u-1", "desk", 1), ("globex", "u-1", "desk", 1), ("acme", "u-2", "desk", 1)]
    places += [("acme", "u-1", "desk2", 1), ("acme", "u-1", "desk", 2)]
    assert len({Connection.id_of(t, o, n, generation=g) for t, o, n, g in places}) == len(places)
    assert Lease.id_of("acme", "j-1") != Lease.id_of("globex", "j-1")


def test_a_lease_ends_after_its_seconds_and_is_revoked_once() -> None:
    lease = issued()
    assert lease.expires_at == T0 + timedelta(seconds=30)
    lease.revoke(reason="the connection was revoked", at=T1)
    lease.revoke(reason="again", at=T1)
    (event,) = lease.collect_events()
    assert (type(event), event.reason, lease.revoked_at) == (Lease.Revoked, "the connection was revoked", T1)


STORED: list[tuple[str, int, dict[str, Any]]] = [
    (
        "broker.Connection.Added",
        1,
        {
            "originator_topic": "broker.Connection",
            "owner": "u-1",
            "name": "desk",
            "kind": "bearer",
            "hosts": ["desk.example:443"],
            "scopes": ["read"],
            "secret_id": "0" * 31 + "7",
            "added_by": "u-1",
            "decision": {"decision_id": "d-1", "decision": True},
        },
    ),
    (
        "broker.Connection.TestStarted",
        2,
        {"host": "desk.example:443", "path": "/", "by": "u-1", "decision": None},
    ),
    ("broker.Connection.Tested", 3, {"status": 200, "fault": None, "ok": True}),
    ("broker.Connection.Revoked", 4, {"by": "u-1", "decision": None}),
]
STORED_LEASE: list[tuple[str, int, dict[str, Any]]] = [
    (
        "broker.Lease.Issued",
        1,
        {
            "originator_topic": "broker.Lease",
            "jti": "j-1",
            "session": "s-1",
            "run": "a" * 32,
            "ordinal": 3,
            "tool": "weather-desk",
            "connection": "desk",
            "connection_id": "0" * 32,
            "scopes": ["read"],
            "ttl_seconds": 30.0,
        },
    ),
    ("broker.Lease.Revoked", 2, {"reason": "the connection was revoked"}),
]
STORED_REFUSAL: list[tuple[str, int, dict[str, Any]]] = [
    (
        "broker.Lease.Refused",
        1,
        {
            "originator_topic": "broker.LeaseRefusal",
            "code": "lease.permit_used",
            "reason": "used",
            "jti": None,
            "run": "a" * 32,
            "tool": "weather-desk",
            "connection": "desk",
        },
    )
]


def replayed(stored: list[tuple[str, int, dict[str, Any]]]) -> Any:
    mapper: Mapper[UUID] = Mapper(StateTranscoder())
    aggregate: Any = None
    for topic, version, fields in stored:
        state = orjson.dumps({"timestamp": "2030-01-01T09:30:00+00:00", **fields})
        aggregate = mapper.to_domain_event(StoredEvent(ID, version, topic, state)).mutate(aggregate)
    return aggregate


def test_events_as_they_were_first_written_are_still_read() -> None:
    connection = replayed(STORED)
    assert isinstance(connection, Connection)
    assert (connection.name, connection.hosts, connection.secret_id) == ("desk", ("desk.example:443",), "0" * 31 + "7")
    assert (connection.active, connection.last_test_ok, connection.decision_id) == (False, True, "d-1")
    lease = replayed(STORED_LEASE)
    assert isinstance(lease, Lease)
    assert (lease.jti, lease.scopes, lease.revoked_at) == ("j-1", ("read",), T0)
    assert replayed(STORED_REFUSAL).code == "lease.permit_used"
    assert isinstance(replayed(STORED_REFUSAL), LeaseRefusal)
