"""Role definitions: a graph without cycles, its closure, and protected fields."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_auth import roles as roles_module
from remit_auth.roles import RoleCycle, Roles, TooManyRoles, UnknownRole, closure, way_back
from remit_contracts.errors import MalformedIdentifier

NOW = datetime(2030, 1, 1, tzinfo=UTC)
CALL_SQL = {"action": "tool.call", "type": "tool", "id": "sql", "max_rows": 100}
names = st.sampled_from("abcdefgh")
graphs = st.dictionaries(names, st.sets(names, max_size=3), max_size=8)


def roles_of(**inherits: list[str]) -> Roles:
    roles = Roles.establish(tenant_id="acme", at=NOW)
    for name, parents in inherits.items():
        roles.define(name=name, inherits=parents, permissions=[], at=NOW)
    roles.collect_events()
    return roles


def test_defining_a_role_records_what_it_inherits_and_allows() -> None:
    roles = roles_of(reader=[])
    roles.define(name="analyst", inherits=["reader"], permissions=[CALL_SQL], at=NOW)
    [event] = roles.collect_events()
    assert isinstance(event, Roles.RoleDefined)
    assert (event.name, event.inherits, event.permissions) == ("analyst", ["reader"], [CALL_SQL])
    assert roles.closure == {"reader": ("reader",), "analyst": ("analyst", "reader")}


def test_defining_the_same_again_records_nothing() -> None:
    roles = roles_of(reader=[], analyst=["reader"])
    roles.define(name="analyst", inherits=["reader", "reader"], permissions=[], at=NOW)
    assert roles.collect_events() == []


def test_a_definition_replaces_the_earlier_one_and_the_closure_follows() -> None:
    roles = roles_of(reader=[], analyst=["reader"], lead=["analyst"])
    roles.define(name="analyst", inherits=[], permissions=[CALL_SQL], at=NOW)
    assert roles.closure["lead"] == ("analyst", "lead")
    assert roles.definitions["analyst"] == {"inherits": [], "permissions": [CALL_SQL]}


@pytest.mark.parametrize(
    ("name", "inherits", "path"),
    [
        ("reader", ["lead"], "reader -> lead -> analyst -> reader"),
        ("lead", ["lead"], "lead -> lead"),
        ("new", ["new"], "new -> new"),
    ],
)
def test_a_cycle_is_refused_and_shown(name: str, inherits: list[str], path: str) -> None:
    roles = roles_of(reader=[], analyst=["reader"], lead=["analyst"])
    with pytest.raises(RoleCycle, match=path) as refusal:
        roles.define(name=name, inherits=inherits, permissions=[], at=NOW)
    assert refusal.value.refusal_code == "conflict.role_cycle"
    assert roles.collect_events() == []


def test_a_parent_must_be_defined() -> None:
    with pytest.raises(UnknownRole, match="king"):
        roles_of().define(name="analyst", inherits=["king"], permissions=[], at=NOW)


@pytest.mark.parametrize(
    "confusable", ["аdministrator", "ａdministrator", "administrator ", "Administrator", "admin\u200b"]
)
def test_a_confusable_name_is_refused(confusable: str) -> None:
    with pytest.raises(MalformedIdentifier):
        roles_of().define(name=confusable, inherits=[], permissions=[], at=NOW)


def test_there_is_a_bound_on_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles_module, "MAX_ROLES", 2)
    roles = roles_of(a=[], b=["a"])
    with pytest.raises(TooManyRoles):
        roles.define(name="c", inherits=[], permissions=[], at=NOW)
    roles.define(name="b", inherits=[], permissions=[], at=NOW)
    assert len(roles.collect_events()) == 1


def test_protected_fields_are_replaced_and_an_empty_list_protects_none() -> None:
    roles = roles_of()
    roles.protect_fields(source="sql", fields=["tailnum", "captain", "tailnum"], at=NOW)
    roles.protect_fields(source="sql", fields=["captain", "tailnum"], at=NOW)
    assert roles.protected_fields == {"sql": ("captain", "tailnum")}
    assert len(roles.collect_events()) == 1
    roles.protect_fields(source="sql", fields=[], at=NOW)
    assert roles.protected_fields == {}


def test_a_chain_longer_than_the_recursion_limit_is_walked() -> None:
    chain = {f"r{n}": [f"r{n + 1}"] for n in range(3000)} | {"r3000": []}
    assert len(closure({"r0": ["r1"]} | chain)["r0"]) == 3001
    assert len(way_back(chain | {"r3000": ["r0"]}, "r0")) == 3002


@given(graphs)
def test_a_closure_holds_the_role_and_is_closed(graph: dict[str, set[str]]) -> None:
    for role, reached in closure(graph).items():
        assert role in reached
        assert all(set(graph.get(one, ())) <= set(reached) for one in reached)


@given(graphs, names)
def test_there_is_a_way_back_exactly_when_a_parent_reaches_the_role(graph: dict[str, set[str]], role: str) -> None:
    whole = {name: set[str]() for name in "abcdefgh"} | graph
    path = way_back(whole, role)
    assert bool(path) == any(role in closure(whole)[parent] for parent in whole[role])
    assert all(after in whole[before] for before, after in pairwise(path))
