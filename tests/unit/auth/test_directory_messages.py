"""The directory's commands: what is taken as it stands, and what is refused before anything happens."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from remit_contracts.directory import (
    DefineRole,
    IssueToken,
    ListUsers,
    Permission,
    ProtectFields,
    RegisterUser,
    RoleDefinition,
    TenantDescribed,
    TokenIssued,
)
from remit_contracts.errors import MalformedCommand
from remit_contracts.messages import Command

PERMISSION: dict[str, Any] = {"action": "tool.call", "type": "tool", "id": "sql"}


def refused(model: type[Command], payload: dict[str, Any]) -> str:
    with pytest.raises(MalformedCommand) as refusal:
        model.from_bytes(orjson.dumps(payload))
    return refusal.value.reason


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"action": "role.*"},
        {"type": "*"},
        {"id": "*"},
        {"id": "reports:*"},
        {"max_rows": 0},
        {"row_filter": {"column": "origin", "op": "in", "values": ["SFO", 7]}},
        {"fields": ["tailnum"]},
    ],
    ids=str,
)
def test_a_permission_survives_the_wire_without_fields_that_it_does_not_have(changed: dict[str, Any]) -> None:
    wanted = PERMISSION | changed
    command = DefineRole.from_bytes(orjson.dumps({"name": "x", "permissions": [wanted]}))
    assert orjson.loads(command.to_bytes())["permissions"] == [wanted]


@pytest.mark.parametrize(
    "changed",
    [
        {"action": "*"},
        {"action": "Tool.call"},
        {"action": "tool..call"},
        {"action": "tool.call\n"},
        {"action": "tооl.call"},
        {"action": "tool.*.call"},
        {"type": "to*l"},
        {"id": ""},
        {"id": "a*"},
        {"id": "*:a"},
        {"id": "sql\u200b"},
        {"id": "../etc"},
        {"max_rows": -1},
        {"max_rows": True},
        {"max_rows": "100"},
        {"max_rows": 1.5},
        {"row_filter": {"column": "a; drop", "op": "in", "values": [1]}},
        {"row_filter": {"column": "a", "op": "like", "values": [1]}},
        {"row_filter": {"column": "a", "op": "in", "values": []}},
        {"row_filter": {"column": "a", "op": "in", "values": [{}]}},
        {"fields": []},
        {"fields": ["*"]},
        {"unless": "monday"},
    ],
    ids=str,
)
def test_a_permission_that_could_mean_more_than_it_says_is_refused(changed: dict[str, Any]) -> None:
    refused(DefineRole, {"name": "x", "permissions": [PERMISSION | changed]})


def test_a_bound_that_a_reader_does_not_know_is_refused_by_the_reader_too() -> None:
    answer = {
        "revision": 1,
        "active": True,
        "roles": {"x": {"inherits": [], "permissions": [PERMISSION]}},
        "closure": {"x": ["x"]},
        "protected_fields": {},
        "said_by_a_newer_version": 1,
    }
    assert TenantDescribed.from_bytes(orjson.dumps(answer)).roles["x"].permissions[0].id == "sql"
    answer["roles"] = {"x": {"inherits": [], "permissions": [PERMISSION | {"hours": [9, 17]}]}}
    with pytest.raises(ValueError, match="hours"):
        TenantDescribed.from_bytes(orjson.dumps(answer))


@pytest.mark.parametrize("handle", ["u-1", "u-", "system", "", "Ann", "ann ", "a.b", "a/b", "*", "аnn", "x" * 64])
def test_a_handle_is_a_label_that_no_user_id_looks_like(handle: str) -> None:
    refused(RegisterUser, {"handle": handle})


@pytest.mark.parametrize("ttl", [0, -1, 2_592_001, 1.5, "60", True])
def test_a_tokens_life_is_a_whole_number_of_seconds_within_a_month(ttl: object) -> None:
    assert "ttl_seconds" in refused(IssueToken, {"handle": "ann", "ttl_seconds": ttl})


def test_bounds_of_lists_and_pages_hold() -> None:
    refused(RegisterUser, {"handle": "ann", "roles": ["r"] * 51})
    refused(ProtectFields, {"source": "sql", "fields": ["f"] * 501})
    refused(ListUsers, {"limit": 501})
    refused(DefineRole, {"name": "x", "permissions": [PERMISSION] * 501})


def test_a_token_does_not_show_in_a_representation() -> None:
    issued = TokenIssued.model_validate({"token": "eyJx.y.z", "session": "s-1", "expires_at": "2030-01-01T00:00:00Z"})
    assert "eyJx" not in repr(issued)


def test_a_definition_and_its_permissions_cannot_be_changed() -> None:
    definition = RoleDefinition(permissions=(Permission(action="a", type="b", id="c"),))
    with pytest.raises(ValueError, match="frozen"):
        definition.permissions[0].id = "*"  # type: ignore[misc]
