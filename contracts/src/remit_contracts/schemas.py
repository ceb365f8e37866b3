"""JSON Schemas of every message and the AsyncAPI 3 document of the bus, generated from the code: `just schemas`.

They are committed, so that a change of a contract shows in review, and a test refuses one that breaks a reader.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

import remit_contracts
from remit_contracts import subjects
from remit_contracts.decisions import DecisionAnswer, DecisionRequest
from remit_contracts.messages import Answer, Command, Fact

BASES = (Command, Answer, Fact)
ROOTS = (*BASES, DecisionRequest, DecisionAnswer)
"""AuthZEN's own shapes have no base of ours."""


def models() -> dict[str, type[BaseModel]]:
    """Every message model by name; two of the same name are a mistake and raise ValueError."""
    found: dict[str, type[BaseModel]] = {}
    for module in pkgutil.iter_modules(remit_contracts.__path__):
        loaded = importlib.import_module(f"remit_contracts.{module.name}")
        for name, value in vars(loaded).items():
            if _is_message(value) and value.__module__ == loaded.__name__ and value not in BASES:
                if found.get(name, value) is not value:
                    raise ValueError(f"two messages are called {name}")
                found[name] = value
    return dict(sorted(found.items()))


def json_schemas() -> dict[str, dict[str, Any]]:
    """Message name -> JSON Schema (2020-12)."""
    return {name: model.model_json_schema() for name, model in models().items()}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document: a channel per request subject, its command and its answer."""
    from remit_contracts.catalogue import OPERATIONS

    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for operation in OPERATIONS:
        key = f"{operation.kind}.{operation.service}.{operation.verb}"
        channels[key] = {
            "address": f"{subjects.ROOT}.{{tenant}}.{{user}}.{key}",
            "parameters": {"tenant": {"description": "tenant id"}, "user": {"description": "user id"}},
            "messages": {"command": _message(operation.command), "answer": _message(operation.answer)},
        }
        operations[key] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{key}"},
            "summary": operation.summary,
            "messages": [{"$ref": f"#/channels/{key}/messages/command"}],
            "reply": {
                "channel": {"$ref": f"#/channels/{key}"},
                "messages": [{"$ref": f"#/channels/{key}/messages/answer"}],
            },
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Remit",
            "version": "1",
            "description": "Requests on the bus. A refusal answers any of them.",
        },
        "channels": channels,
        "operations": operations,
        "components": {"schemas": json_schemas()},
    }


def write(folder: Path) -> list[str]:
    """Write all of it to `folder` and give the file names; files of messages that are gone are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {f"{name}.json": schema for name, schema in json_schemas().items()} | {"asyncapi.json": asyncapi()}
    for stale in {path.name for path in folder.glob("*.json")} - content.keys():
        (folder / stale).unlink()
    for name, document in content.items():
        (folder / name).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
    return sorted(content)


def _is_message(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, ROOTS)


def _message(model: type[BaseModel]) -> dict[str, Any]:
    return {"name": model.__name__, "payload": {"$ref": f"#/components/schemas/{model.__name__}"}}


if __name__ == "__main__":
    sys.stdout.write(f"wrote {len(write(Path(sys.argv[1])))} files\n")
