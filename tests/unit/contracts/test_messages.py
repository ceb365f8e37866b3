import pickle
from typing import Any

import orjson
import pytest
from pydantic import Field

from remit_contracts.errors import (
    Absent,
    Conflict,
    Denied,
    MalformedCommand,
    NotSignedIn,
    Overloaded,
    Refusal,
    Tampered,
    Unavailable,
    refusal_from,
)
from remit_contracts.messages import Answer, Command
from remit_contracts.runs import StartRun


class Order(Command):
    name: str
    count: int = 1


class Loose(Order):
    more: dict[str, Any] = Field(default_factory=dict)


class Told(Answer):
    name: str


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (b'{"name": "x", "extra": 1}', "extra"),
        (b'{"count": 2}', "name"),
        (b'{"name": 3}', "name"),
        (b'{"name": "x", "count": "2"}', "count"),
        (b'{"name": "x"', "payload"),
        (b"[]", "payload"),
        (b"\xff\xfe", "payload"),
    ],
)
def test_a_command_that_is_not_as_promised_is_refused_and_the_field_named(payload, named):
    with pytest.raises(MalformedCommand) as refused:
        Order.from_bytes(payload)
    assert named in refused.value.reason
    assert refused.value.refusal_code == "request.malformed"


def test_a_refusal_of_a_command_never_shows_the_value():
    with pytest.raises(MalformedCommand) as refused:
        Order.from_bytes(b'{"name": {"secret": "sk-canary-1"}, "smuggled": "sk-canary-2"}')
    assert "canary" not in refused.value.reason


@pytest.mark.parametrize(
    "payload",
    [
        b'{"name": "x", "name": "y"}',
        b'{"name": "x", "count": 1, "name": "x"}',
        b'{"name": "x", "n\\u0061me": "y"}',
        b'{"name": "x", "more": {"name": 1, "name": 2.5e3}}',
        b'{"name": "x", "more": {"rows": [[], [{"name": 1}, {"name": null, "b": 2, "name": true}]]}}',
    ],
)
def test_a_name_that_stands_twice_in_one_object_is_refused(payload):
    with pytest.raises(MalformedCommand, match=r"name: named twice in one object") as refused:
        Loose.from_bytes(payload)
    assert refused.value.refusal_code == "request.malformed"


def test_one_name_in_several_objects_stands_once_in_each():
    given = Loose.from_bytes(b'{"name": "x", "more": {"name": [{"name": 1e400}, {"name": %s}]}}' % (b"9" * 4_000))
    assert given.more.keys() == {"name"}


@pytest.mark.parametrize("character", ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("place", ["{}key", "k{}ey", "key{}"])
def test_an_idempotency_key_is_one_line_without_control_characters(character, place):
    asked = {"agent": "analyst", "prompt": "lines\nare for prompts", "idempotency_key": place.format(character)}
    with pytest.raises(MalformedCommand, match="idempotency_key"):
        StartRun.from_bytes(orjson.dumps(asked))
    asked["idempotency_key"] = "client 7: Straße/ünï-键"
    assert StartRun.from_bytes(orjson.dumps(asked)).idempotency_key == asked["idempotency_key"]


def test_an_answer_of_a_newer_service_is_still_read():
    assert Told.from_bytes(b'{"name": "x", "new_field": 1}').name == "x"


@pytest.mark.parametrize(
    ("refusal", "exit_code"),
    [
        (MalformedCommand("r"), 2),
        (Denied("r", decision_id="d-1"), 3),
        (Absent("r"), 4),
        (Unavailable("r"), 5),
        (Tampered("r"), 6),
        (NotSignedIn("r"), 7),
        (Overloaded("r", retry_after_seconds=2.0), 75),
        (Conflict("r"), 1),
    ],
)
def test_a_refusal_crosses_the_bus_with_its_code_reason_and_decision(refusal, exit_code):
    arrived = refusal_from(refusal.as_dict())
    assert (arrived.refusal_code, arrived.reason, arrived.decision_id, arrived.retry_after_seconds) == (
        refusal.refusal_code,
        "r",
        refusal.decision_id,
        refusal.retry_after_seconds,
    )
    assert arrived.exit_code == exit_code
    assert pickle.loads(pickle.dumps(refusal)).as_dict() == refusal.as_dict()  # noqa: S301 - our own bytes


@pytest.mark.parametrize("garbage", [None, 3, [], {}, {"error": "x"}, {"error": {"code": 7}}])
def test_an_ill_shaped_refusal_is_still_a_refusal(garbage):
    assert isinstance(refusal_from(garbage), Refusal)
