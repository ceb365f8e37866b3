"""The bases of every message, and what each promises about fields it does not know.

Commands are orders from outside: an unknown field is refused, so that a misspelt or smuggled one never passes in
silence. Answers and events are facts from us: an unknown field is ignored, so that an older reader survives a newer
writer.
"""

from __future__ import annotations

import json
from typing import Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from remit_contracts.errors import MalformedCommand
from remit_contracts.faults import in_words


class Command(BaseModel):
    """An order or a question: frozen, strict about types, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Decode; raises MalformedCommand naming each bad field, never showing its value."""
        payload = payload or b"{}"
        try:
            command = cls.model_validate_json(payload)
        except ValidationError as invalid:
            raise MalformedCommand(f"{_is_no(cls)}: {in_words(invalid)}") from None
        if twice := _named_twice(payload):
            raise MalformedCommand(f"{_is_no(cls)}: {twice}: named twice in one object")
        return command

    def to_bytes(self) -> bytes:
        """JSON, without fields that are unset."""
        return self.model_dump_json(exclude_none=True).encode()


class Answer(BaseModel):
    """What a service answers: frozen, tolerant of unknown fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Decode an answer that is no refusal."""
        return cls.model_validate_json(payload)

    def to_bytes(self) -> bytes:
        """JSON with every field."""
        return self.model_dump_json().encode()


class Fact(BaseModel):
    """The payload of an event as others read it: frozen, tolerant of unknown fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Nothing(Command):
    """A command without fields: `{}`."""


def encode(value: BaseModel | dict[str, Any] | bytes) -> bytes:
    """Any payload as JSON bytes."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump_json().encode()
    return orjson.dumps(value)


def _named_twice(payload: bytes) -> str:
    """A name that an object of this valid JSON has twice; empty when there is none.

    The parsers behind models and msgspec keep the last value and say nothing, and what stands before us may have looked
    at the first. Some microseconds for a usual command; numbers are passed over, as their length would cost more.
    """
    twice: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(names) != len(set(names)):
            twice.append(next(name for place, name in enumerate(names) if name in names[:place]))

    json.loads(payload.decode(), object_pairs_hook=look, parse_int=len, parse_float=len)
    return twice[0][:80] if twice else ""


def _is_no(model: type[BaseModel]) -> str:
    return f"this is no {model.__name__} ({', '.join(model.model_fields) or 'no fields'})"
