"""The bases of every message, and what each promises about fields it does not know.

Commands are orders from outside: an unknown field is refused, so that a misspelt or smuggled one never passes in
silence. Answers and events are facts from us: an unknown field is ignored, so that an older reader survives a newer
writer.
"""

from __future__ import annotations

from typing import Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from remit_contracts.errors import MalformedCommand


class Command(BaseModel):
    """An order or a question: frozen, strict about types, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Decode; raises MalformedCommand naming each bad field, never showing its value."""
        try:
            return cls.model_validate_json(payload or b"{}")
        except ValidationError as invalid:
            raise MalformedCommand(_explain(cls, invalid)) from None

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


def _explain(model: type[BaseModel], invalid: ValidationError) -> str:
    faults = "; ".join(
        f"{'.'.join(map(str, error['loc'])) or 'payload'}: {error['msg']}"
        for error in invalid.errors(include_input=False)[:5]
    )
    fields = ", ".join(model.model_fields) or "no fields"
    return f"this is no {model.__name__} ({fields}): {faults}"
