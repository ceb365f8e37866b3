"""Given events, when command, then events: tenants, users and sessions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from eventsourcing.domain import Aggregate

from remit_auth.domain import ReservedTenant, RoleNotHeld, Session, Tenant, User
from remit_auth.ids import session_id_from, user_id_from
from remit_auth.roles import UnknownRole
from remit_contracts.errors import MalformedIdentifier
from remit_contracts.identity import RESERVED_TENANTS, is_label

T0 = datetime(2030, 1, 1, 9, 30, tzinfo=UTC)
T1 = T0 + timedelta(minutes=1)


def past(aggregate: type[Aggregate], *facts: tuple[type[Any], dict[str, Any]]) -> Any:
    """The aggregate after these events, all at T0."""
    now: Any = None
    for version, (kind, fields) in enumerate(facts, start=1):
        first = {"originator_topic": aggregate.TOPIC} if version == 1 else {}
        now = kind(originator_id=ID, originator_version=version, timestamp=T0, **first, **fields).mutate(now)
    return now


def fact(kind: type[Any], version: int, **fields: Any) -> Any:
    """An event as it should have been recorded at T1."""
    return kind(originator_id=ID, originator_version=version, timestamp=T1, **fields)


ID = User.id_of("acme", "u-1")
REGISTERED = (User.Registered, {"user_id": "u-1", "handle": "analyst", "email": None, "name": None})
ANALYST = (User.RoleAssigned, {"role": "analyst"})
DISABLED = (User.Disabled, {"reason": None})
CREATED = (Tenant.Created, {"tenant_id": "acme", "name": None})
SUSPENDED = (Tenant.Suspended, {"reason": "unpaid"})
OPENED = (Session.Opened, {"session_id": "s-1", "user_id": "u-1", "ttl_seconds": 60, "issuer": "remit-dev"})


def test_registering_records_the_attributes_and_nothing_else() -> None:
    user = User.register(tenant_id="acme", user_id="u-1", handle="analyst", email="a@acme.test", name="Ann", at=T1)
    expected = fact(
        User.Registered,
        1,
        originator_topic="auth.User",
        user_id="u-1",
        handle="analyst",
        email="a@acme.test",
        name="Ann",
    )
    assert user.collect_events() == [expected]
    assert user.active
    assert user.roles == set()


@pytest.mark.parametrize("bad", ["", "Analyst", "a b", "analyst\n", "аnalyst", "x" * 64, "-a"])
def test_a_handle_or_id_that_is_no_label_is_refused(bad: str) -> None:
    with pytest.raises(MalformedIdentifier):
        User.register(tenant_id="acme", user_id="u-1", handle=bad, email=None, name=None, at=T1)
    with pytest.raises(MalformedIdentifier):
        User.register(tenant_id="acme", user_id=bad, handle="analyst", email=None, name=None, at=T1)


def test_a_defined_role_is_assigned_once() -> None:
    user = past(User, REGISTERED)
    user.assign_role(role="analyst", defined_roles={"analyst"}, at=T1)
    user.assign_role(role="analyst", defined_roles={"analyst"}, at=T1)
    assert user.collect_events() == [fact(User.RoleAssigned, 2, role="analyst")]


def test_an_undefined_role_is_not_assigned() -> None:
    user = past(User, REGISTERED)
    with pytest.raises(UnknownRole, match="no role king is defined"):
        user.assign_role(role="king", defined_roles={"analyst"}, at=T1)
    assert user.collect_events() == []


def test_a_role_that_is_held_is_removed() -> None:
    user = past(User, REGISTERED, ANALYST)
    user.remove_role(role="analyst", at=T1)
    assert user.collect_events() == [fact(User.RoleRemoved, 3, role="analyst")]
    assert user.roles == set()


def test_removing_a_role_that_is_not_held_is_refused_not_ignored() -> None:
    user = past(User, REGISTERED, ANALYST)
    with pytest.raises(RoleNotHeld, match="does not hold the role operator; held: analyst") as refused:
        user.remove_role(role="operator", at=T1)
    assert (refused.value.refusal_code, user.roles) == ("absent.role", {"analyst"})


def test_disabling_and_enabling_are_recorded_once_each() -> None:
    user = past(User, REGISTERED)
    user.disable(reason="left", at=T1)
    user.disable(reason="left", at=T1)
    assert not user.active
    user.enable(reason=None, at=T1)
    user.enable(reason=None, at=T1)
    assert user.active
    assert user.collect_events() == [fact(User.Disabled, 2, reason="left"), fact(User.Enabled, 3, reason=None)]


def test_a_disabled_user_keeps_handle_and_roles() -> None:
    user = past(User, REGISTERED, ANALYST, DISABLED)
    assert (user.handle, user.roles, user.active) == ("analyst", {"analyst"}, False)


@pytest.mark.parametrize("reserved", sorted(RESERVED_TENANTS))
def test_the_platforms_own_ids_are_nobodys_tenant(reserved: str) -> None:
    with pytest.raises(ReservedTenant):
        Tenant.create(tenant_id=reserved, name=None, at=T1)


def test_a_tenant_is_suspended_and_resumed() -> None:
    tenant = Tenant.create(tenant_id="acme", name="Acme", at=T0)
    tenant.collect_events()
    tenant.suspend(reason="unpaid", at=T1)
    tenant.suspend(reason="again", at=T1)
    assert not tenant.active
    tenant.resume(at=T1)
    assert [type(event) for event in tenant.collect_events()] == [Tenant.Suspended, Tenant.Resumed]
    assert tenant.active


def test_resuming_what_is_not_suspended_records_nothing() -> None:
    tenant = past(Tenant, CREATED, SUSPENDED, (Tenant.Resumed, {}))
    tenant.resume(at=T1)
    assert tenant.collect_events() == []


def test_a_session_lasts_as_long_as_it_said_and_ends_once() -> None:
    session = past(Session, OPENED)
    assert session.expires_at == T0 + timedelta(seconds=60)
    session.end(reason="stolen", at=T1)
    session.end(reason="stolen", at=T1)
    assert session.collect_events() == [fact(Session.Ended, 2, session_id="s-1", reason="stolen")]


def test_ids_are_labels_of_eighty_random_bits() -> None:
    assert user_id_from(bytes(10)) == "u-aaaaaaaaaaaaaaaa"
    assert session_id_from(b"\xff" * 10) == "s-7777777777777777"
    assert is_label(user_id_from(bytes(range(10))))
    with pytest.raises(ValueError, match="10 random bytes"):
        user_id_from(bytes(4))


def test_no_two_things_share_an_aggregate() -> None:
    ids = {
        User.id_of("a", "b-c"),
        User.id_of("a-b", "c"),
        Session.id_of("a", "b-c"),
        Tenant.id_of("a"),
        Tenant.id_of("a-b"),
    }
    assert len(ids) == 5
