"""What a refused command says: our words, never those of the library that parses it."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest

from remit_contracts.catalogue import OPERATIONS
from remit_contracts.connections import AddConnection
from remit_contracts.directory import DefineRole, ListUsers
from remit_contracts.errors import MalformedCommand
from remit_contracts.messages import Command
from remit_contracts.runs import ListRuns, ShowRun, StartRun
from remit_contracts.trails import ProveEntry

LIBRARY = re.compile(
    r"Input should|String should|Tuple should|Value error|Extra inputs|Field required|pydantic|Invalid"
)
CONNECTION: dict[str, Any] = {"name": "desk", "kind": "bearer", "sealed_secret": "x"}
RULE: dict[str, Any] = {"action": "a.b", "type": "tool", "id": "x"}
COMMANDS = sorted({it.command for it in OPERATIONS if issubclass(it.command, Command)}, key=lambda it: it.__name__)


def told(command: type[Command], payload: bytes) -> str:
    """What is wrong, without the first words, which say what the command is."""
    with pytest.raises(MalformedCommand) as refused:
        command.from_bytes(payload)
    return refused.value.reason.partition("): ")[2]


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        (ShowRun, {"run_id": "zz"}, "run_id: is no run id: 32 of 0-9 and a-f, as `remit runs list` shows them"),
        (StartRun, {"agent": "a b", "prompt": "x"}, "agent: is no identifier: use 1 to 63 of a-z, 0-9 and inner hyphens"),
        (StartRun, {"agent": "a", "prompt": ""}, "prompt: must not be empty"),
        (StartRun, {"agent": "a", "prompt": 5}, "prompt: must be text"),
        (StartRun, {"agent": "a", "prompt": "x" * 32_001}, "prompt: may have at most 32000 characters"),
        (StartRun, {"agent": "a"}, "prompt: is missing"),
        (StartRun, {"agent": "a", "prompt": "x", "sesion": "s"}, "sesion: no such field"),
        (StartRun, {"agent": "a", "prompt": "x", "idempotency_key": "a\n"}, "idempotency_key: must be one line without control characters"),
        (StartRun, [], "payload: must be an object"),
        (ListRuns, {"limit": 0}, "limit: must be at least 1"),
        (ListRuns, {"limit": 1.5}, "limit: must be a whole number"),
        (ListRuns, {"limit": 501}, "limit: may be at most 500"),
        (ProveEntry, {"index": 2**62}, "index: must be less than 4611686018427387904"),
        (ProveEntry, {"index": 10**30}, "index: must be less than 4611686018427387904"),
        (ListUsers, {"after": "u-x"}, "after: is no handle (neither 'system' nor beginning with 'u-'): use 1 to 63 of a-z, 0-9 and inner hyphens"),
        (AddConnection, {**CONNECTION, "kind": "basic"}, "kind: must be 'bearer'"),
        (AddConnection, {**CONNECTION, "shared": "yes"}, "shared: must be true or false"),
        (AddConnection, {**CONNECTION, "hosts": "a:1"}, "hosts: must be a list"),
        (AddConnection, {**CONNECTION, "hosts": ["BAD"]}, "hosts.0: is no HOST:PORT in lower case, such as desk.example:443"),
        (AddConnection, {**CONNECTION, "hosts": ["a:1"] * 11}, "hosts: may hold at most 10 of them"),
        (DefineRole, {"name": "r", "permissions": [{**RULE, "fields": []}]}, "permissions.0.fields: must not be empty"),
        (DefineRole, {"name": "r", "permissions": [{**RULE, "fields": ["1"]}]}, "permissions.0.fields.0: is no field name"),
        (
            DefineRole,
            {"name": "r", "permissions": [{**RULE, "row_filter": {"column": "c", "op": "eq", "values": [None]}}]},
            "permissions.0.row_filter.values.0: must be text or must be a whole number",
        ),
    ],
)  # fmt: skip
def test_a_bad_field_is_told_once_in_plain_words_with_what_is_expected(
    command: type[Command], given: Any, said: str
) -> None:
    assert told(command, json.dumps(given).encode()) == said


def test_what_is_no_json_is_told_by_its_place() -> None:
    assert told(StartRun, b"{") == "payload: is no JSON (EOF while parsing an object at line 1 column 1)"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_refusal_of_any_command_is_in_the_librarys_words(command: type[Command]) -> None:
    junk: list[Any] = [None, True, -1, 2**63, 1.5, "", "a b", "x" * 40_000, [], [None], ["", 1, [], {}], {}, {"a": 1}]
    for name in (*command.model_fields, "no-such-field"):
        for value in junk:
            payload = orjson.dumps({name: value})
            try:
                command.from_bytes(payload)
            except MalformedCommand as refused:
                assert not LIBRARY.search(refused.reason), refused.reason
                assert "is not as it must be" not in refused.reason, refused.reason
