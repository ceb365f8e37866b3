"""Events as they were first written are read for ever: changing these lines would lose somebody's history."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.persistence import Mapper, StoredEvent
from eventsourcing.utils import resolve_topic

from remit_auth.domain import Session, Tenant, User
from remit_auth.roles import Roles
from remit_chassis.eventstore.transcoder import StateTranscoder

AT = '"timestamp":"2030-01-01T09:30:00.250000+00:00"'
PERMISSION = '{"action":"tool.call","type":"tool","id":"sql","max_rows":100}'
TENANT, ROLES = Tenant.id_of("acme"), Roles.id_of("acme")
USER, SESSION = User.id_of("acme", "u-1"), Session.id_of("acme", "s-1")

HISTORIES: dict[UUID, list[tuple[str, str]]] = {
    TENANT: [
        ("auth.Tenant.Created", '"originator_topic":"auth.Tenant","tenant_id":"acme","name":null'),
        ("auth.Tenant.Suspended", '"reason":"unpaid"'),
        ("auth.Tenant.Resumed", ""),
    ],
    ROLES: [
        ("auth.Roles.Established", '"originator_topic":"auth.Roles"'),
        ("auth.Roles.RoleDefined", '"name":"reader","inherits":[],"permissions":[]'),
        ("auth.Roles.RoleDefined", f'"name":"analyst","inherits":["reader"],"permissions":[{PERMISSION}]'),
        ("auth.Roles.FieldsProtected", '"source":"sql","fields":["tailnum"]'),
    ],
    USER: [
        (
            "auth.User.Registered",
            '"originator_topic":"auth.User","user_id":"u-1","handle":"ann","email":"ann@acme.test","name":"Ann"',
        ),
        ("auth.User.RoleAssigned", '"role":"analyst"'),
        ("auth.User.RoleAssigned", '"role":"reader"'),
        ("auth.User.RoleRemoved", '"role":"reader"'),
        ("auth.User.Disabled", '"reason":"left"'),
        ("auth.User.Enabled", '"reason":null'),
    ],
    SESSION: [
        (
            "auth.Session.Opened",
            '"originator_topic":"auth.Session","session_id":"s-1","user_id":"u-1","ttl_seconds":60',
        ),
        ("auth.Session.Ended", '"session_id":"s-1","reason":"stolen"'),
    ],
}


def replayed(aggregate_id: UUID) -> Any:
    mapper: Mapper[UUID] = Mapper(StateTranscoder())
    aggregate: Any = None
    for version, (topic, fields) in enumerate(HISTORIES[aggregate_id], start=1):
        state = "{" + ",".join(filter(None, (AT, fields))) + "}"
        aggregate = mapper.to_domain_event(StoredEvent(aggregate_id, version, topic, state.encode())).mutate(aggregate)
    return aggregate


def test_the_ids_of_aggregates_never_change() -> None:
    assert [one.hex[:8] for one in (TENANT, ROLES, USER, SESSION)] == ["17a8226b", "4ec49823", "5d3bb340", "3d9df2f8"]


def test_an_old_tenant() -> None:
    tenant = replayed(TENANT)
    assert (tenant.tenant_id, tenant.active, tenant.version) == ("acme", True, 3)


def test_old_roles() -> None:
    roles = replayed(ROLES)
    assert roles.closure == {"reader": ("reader",), "analyst": ("analyst", "reader")}
    assert roles.definitions["analyst"]["permissions"][0]["max_rows"] == 100
    assert roles.protected_fields == {"sql": ("tailnum",)}


def test_an_old_user() -> None:
    user = replayed(USER)
    assert (user.handle, user.email, user.name) == ("ann", "ann@acme.test", "Ann")
    assert (user.roles, user.active, user.version) == ({"analyst"}, True, 6)


def test_an_old_session_was_vouched_for_by_the_only_issuer_there_was() -> None:
    session = replayed(SESSION)
    assert (session.ended, session.issuer) == (True, "remit-dev")
    assert session.expires_at == datetime(2030, 1, 1, 9, 31, 0, 250_000, tzinfo=UTC)


@pytest.mark.parametrize("aggregate", [Tenant, Roles, User, Session])
def test_every_kind_of_event_has_a_place_in_these_histories(aggregate: type[Any]) -> None:
    topics = {
        member.TOPIC for member in vars(aggregate).values() if isinstance(member, type) and "TOPIC" in vars(member)
    }
    recorded = {topic for history in HISTORIES.values() for topic, _ in history}
    assert topics <= recorded
    assert all(topic == resolve_topic(topic).TOPIC for topic in topics)
