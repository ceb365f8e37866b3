"""The committed schemas are those of the code, and no change of them breaks a reader."""

import json
from pathlib import Path

import pytest

from remit_contracts import schemas

COMMITTED = Path(__file__).parents[2] / "contracts" / "schemas"


def broken(before, after):
    """What a reader of `before` would miss in `after`: fields removed or of another type, for `$defs` as well."""
    faults = []
    for name, old in before.get("properties", {}).items():
        new = after.get("properties", {}).get(name)
        if new is None:
            faults.append(f"{name} was removed")
        elif shape(old) != shape(new):
            faults.append(f"{name} was retyped from {shape(old)} to {shape(new)}")
    for name in set(after.get("required", [])) - set(before.get("required", [])) - set(before.get("properties", {})):
        if after.get("additionalProperties") is False:
            faults.append(f"{name} became required of old senders")
    for name, definition in before.get("$defs", {}).items():
        faults += [f"{name}.{fault}" for fault in broken(definition, after.get("$defs", {}).get(name, {}))]
    return faults


def shape(field):
    """A field's type, with its alternatives and items, without words and bounds."""
    alternatives = field.get("anyOf") or field.get("oneOf")
    if alternatives:
        return sorted(str(shape(alternative)) for alternative in alternatives)
    return field.get("$ref") or [
        field.get("type"),
        shape(field["items"]) if isinstance(field.get("items"), dict) else None,
    ]


def test_the_committed_schemas_are_those_of_the_code():
    generated = {f"{name}.json": schema for name, schema in schemas.json_schemas().items()}
    committed = {path.name: json.loads(path.read_text()) for path in COMMITTED.glob("*.json")}
    assert committed.pop("asyncapi.json") == schemas.asyncapi(), "run `just schemas`"
    for name, schema in committed.items():
        assert name in generated, f"{name[:-5]} was removed: readers of it break"
        assert not broken(schema, generated[name]), f"{name}: {broken(schema, generated[name])}"
    assert committed == generated, "run `just schemas`"


def test_a_removed_and_a_retyped_field_are_noticed():
    before = {
        "properties": {
            "a": {"type": "string"},
            "b": {"type": "integer"},
            "c": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        }
    }
    after = {"properties": {"b": {"type": "string"}, "c": {"type": "string"}}}
    assert [fault.split()[0] for fault in broken(before, after)] == ["a", "b", "c"]


def test_every_request_of_a_service_is_in_the_asyncapi_document():
    document = schemas.asyncapi()
    assert document["asyncapi"] == "3.0.0"
    for key, operation in document["operations"].items():
        channel = document["channels"][key]
        assert operation["channel"]["$ref"] == f"#/channels/{key}"
        for message in channel["messages"].values():
            assert message["payload"]["$ref"].rpartition("/")[2] in document["components"]["schemas"]


@pytest.mark.parametrize("name", ["StartRun", "ShowTrail", "DefineRole"])
def test_a_commands_schema_forbids_unknown_fields(name):
    assert schemas.json_schemas()[name]["additionalProperties"] is False
