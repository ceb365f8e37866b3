"""Roles as the engine gets them."""

import orjson
import pytest
from unit.policy.tenants import ROLES, data, described, grant

from remit_contracts.decisions import ACTIONS
from remit_contracts.directory import RoleDefinition
from remit_policy.shaping import shape, spelled_out


def document(**changes):
    return orjson.loads(data(**changes).document)


def test_inheritance_is_resolved_when_roles_change_and_not_at_the_decision():
    grants = document()["grants"]
    assert grants["administrator"]["tool.call"]["sql"] == [{"type": "tool", "max_rows": 100}]
    assert grants["administrator"]["agent.invoke"] == {"*": [{"type": "agent"}]}
    assert "sql" not in grants["reader"]["tool.call"]


def test_a_family_of_actions_is_spelled_out():
    grants = document()["grants"]["administrator"]
    assert {action for action in grants if action.startswith("role.")} == {
        action for action in ACTIONS if action.startswith("role.")
    }
    assert spelled_out("tool.call") == ["tool.call"]
    assert spelled_out("nothing.*") == []


def test_a_family_never_reaches_a_look_alike():
    assert all(name.startswith("run.") for name in spelled_out("run.*"))


def test_the_same_grant_inherited_twice_counts_once():
    assert document()["grants"]["administrator"]["tool.call"]["docs"] == [{"type": "tool"}]


def test_bounds_are_kept_and_absent_ones_left_out():
    assert document()["grants"]["north"]["tool.call"]["sql"] == [
        {"type": "tool", "row_filter": {"column": "region", "op": "in", "values": ["north", "east"]}}
    ]
    assert document()["grants"]["administrator"]["field.read"]["sql"] == [
        {"type": "data_source", "fields": ["tailnum", "name"]}
    ]


def test_a_suspended_tenants_roles_grant_nothing():
    assert document(active=False)["grants"] == {}


def test_the_digest_is_of_the_content_and_not_of_the_order():
    backwards = described(roles=dict(reversed(ROLES.items())))
    assert shape(backwards) == data()
    assert data(revision=8).digest != data().digest


def test_users_are_never_policy_data():
    assert b"u-" not in data().document


@pytest.mark.parametrize("revision", [0, 7, 2**40])
def test_the_document_names_its_own_revision(revision):
    assert document(revision=revision)["revision"] == data(revision=revision).revision == str(revision)


def test_a_role_that_the_closure_names_must_be_defined():
    broken = described().model_copy(update={"closure": {"ghost": ("ghost",)}})
    with pytest.raises(KeyError):
        shape(broken)


def test_two_roles_that_grant_one_id_differently_keep_both_grants():
    roles = {
        "a": RoleDefinition(permissions=(grant("tool.call", "tool", "sql", max_rows=1),)),
        "b": RoleDefinition(inherits=("a",), permissions=(grant("tool.call", "tool", "sql", max_rows=2),)),
    }
    found = document(roles=roles)["grants"]["b"]["tool.call"]["sql"]
    assert sorted(one["max_rows"] for one in found) == [1, 2]
