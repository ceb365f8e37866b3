"""Event state as JSON bytes.

Besides JSON's own types, a field may itself be a datetime, UUID, Decimal, bytes or tuple; which ones are is written
beside the fields under `~`, a name that no field can have. (The library marks such values in place, by a dict with two
well-known keys: a user who sends that dict inside an argument makes the event unreadable.) Deeper values are JSON only.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson
from eventsourcing.persistence import Transcoder

TYPES: Final = "~"
_PLAIN = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS

_WRITE: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("datetime", datetime.isoformat),
    UUID: ("uuid", lambda value: value.hex),
    Decimal: ("decimal", str),
    bytes: ("bytes", lambda value: b64encode(value).decode()),
    tuple: ("tuple", list),
}
_READ: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "uuid": UUID,
    "decimal": Decimal,
    "bytes": b64decode,
    "tuple": tuple,
}


class StateTranscoder(Transcoder):
    """Raises TypeError for a state that JSON cannot hold; bytes that are no such JSON raise ValueError."""

    def encode(self, obj: dict[str, Any]) -> bytes:
        """One event's fields."""
        types: dict[str, str] = {}
        written = dict(obj)
        for name, value in obj.items():
            if (known := _WRITE.get(type(value))) is not None:
                types[name], write = known
                written[name] = write(value)
        # The library gives every event this one; saying so each time would be a tenth of a small event.
        if types.get("timestamp") == "datetime":
            del types["timestamp"]
        if types:
            written[TYPES] = types
        return orjson.dumps(written, option=_PLAIN)

    def decode(self, data: bytes) -> dict[str, Any]:
        """The fields again, typed as they were."""
        state: dict[str, Any] = orjson.loads(data)
        types: dict[str, str] = state.pop(TYPES, {})
        if "timestamp" in state:
            types = {"timestamp": "datetime", **types}
        for name, kind in types.items():
            state[name] = _READ[kind](state[name])
        return state
