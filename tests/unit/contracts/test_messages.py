import pickle

import pytest

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


class Order(Command):
    name: str
    count: int = 1


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
