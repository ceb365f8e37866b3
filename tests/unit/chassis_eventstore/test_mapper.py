"""Between events and ciphertext: nothing moves to another user, place or meaning; old events still open."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import orjson
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eventsourcing.domain import Aggregate
from unit.chassis_eventstore.documents import CHAIN, Document

from remit_chassis.eventstore.chain import Chain, Head, Save, link
from remit_chassis.eventstore.mapper import EncryptingMapper
from remit_chassis.eventstore.transcoder import StateTranscoder
from remit_contracts.errors import Tampered
from remit_contracts.events import Envelope

KEY = os.urandom(32)
MAPPER = EncryptingMapper("acme")


def stored(event: Any, user: str = "u-1") -> Envelope:
    (((envelope,),), _) = link(
        CHAIN, Head(), [Save(user, [MAPPER.seal(event, user, KEY)])], "2026-01-31T12:00:00.000000Z"
    )
    return envelope


def started(text: str = "first") -> Any:
    return Document(text=text).collect_events()[0]


def test_an_event_comes_back_as_it_was() -> None:
    event = started()
    assert MAPPER.open(stored(event), KEY) == event


def test_what_is_stored_shows_nothing_of_the_state() -> None:
    assert b"first" not in stored(started("first")).state


def test_the_same_event_never_gives_the_same_ciphertext() -> None:
    event = started()
    assert stored(event).state != stored(event).state


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "u-2"),
        ("originator_id", "0" * 32),
        ("originator_version", 2),
        ("topic", "lab.Document.Edited"),
        ("state", b""),
        ("state", bytes(40)),
    ],
)
def test_a_state_cannot_be_moved_or_altered(field: str, value: Any) -> None:
    moved = msgspec.structs.replace(stored(started()), **{field: value})
    with pytest.raises(Tampered):
        MAPPER.open(moved, KEY)


def test_a_state_opens_in_its_own_tenant_only() -> None:
    with pytest.raises(Tampered):
        EncryptingMapper("globex").open(stored(started()), KEY)


def test_a_state_opens_with_its_users_key_only() -> None:
    with pytest.raises(Tampered):
        MAPPER.open(stored(started()), os.urandom(32))


def test_a_forged_topic_is_never_imported() -> None:
    forged = msgspec.structs.replace(stored(started()), topic="antigravity:fly")
    with pytest.raises(Tampered):
        MAPPER.open(forged, KEY)


def test_an_event_class_without_a_topic_of_its_own_is_refused() -> None:
    class Nameless(Aggregate):
        """States none, so the library would use the import path."""

    with pytest.raises(TypeError, match="TOPIC"):
        MAPPER.seal(Nameless().collect_events()[0], "u-1", KEY)


def test_a_topic_that_is_no_service_aggregate_event_is_refused() -> None:
    class Casual(Aggregate):
        TOPIC = "lab.Casual"

        class Event(Aggregate.Event):
            """Something that happened to it."""

        class Created(Event, Aggregate.Created):
            TOPIC = "casual-created"

    with pytest.raises(TypeError, match="casual-created"):
        MAPPER.seal(Casual().collect_events()[0], "u-1", KEY)


# -- state as JSON ----------------------------------------------------------------------------------------------------


def test_a_field_keeps_its_type() -> None:
    state = {
        "timestamp": datetime(2026, 1, 31, 12, 0, 0, 5, UTC),
        "expires_at": datetime(2026, 2, 1, tzinfo=UTC),
        "run": UUID(int=7),
        "cost": Decimal("0.10"),
        "digest": b"\x00\xff",
        "roles": ("reader", "analyst"),
        "plain": {"a": [1, 2.5, None, True, "ü"]},
    }
    transcoder = StateTranscoder()
    assert transcoder.decode(transcoder.encode(state)) == state


@pytest.mark.parametrize(
    "argument", [{"_type_": "uuid_hex", "_data_": "no uuid"}, {"~": {"argument": "datetime"}}, {"timestamp": "now"}]
)
def test_what_a_user_sends_is_never_taken_for_a_type(argument: dict[str, Any]) -> None:
    state = {"timestamp": datetime(2026, 1, 31, tzinfo=UTC), "argument": argument}
    transcoder = StateTranscoder()
    assert transcoder.decode(transcoder.encode(state)) == state


@pytest.mark.parametrize("value", [{1, 2}, object(), {"at": datetime(2026, 1, 31, tzinfo=UTC)}])
def test_a_state_that_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        StateTranscoder().encode({"value": value})


# -- events of before -------------------------------------------------------------------------------------------------


class Metering(Aggregate):
    """What a run cost. Version 1 of Metered counted dollars as a float; sums of those drifted, so version 2 counts
    millionths."""

    TOPIC = "lab.Metering"

    class Event(Aggregate.Event):
        """Something that happened to it."""

    class Created(Event, Aggregate.Created):
        TOPIC = "lab.Metering.Created"

    class Metered(Event):
        TOPIC = "lab.Metering.Metered"
        class_version = 2
        model: str
        cost_microusd: int

        def apply(self, aggregate: Metering) -> None:
            aggregate.cost_microusd += self.cost_microusd

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """`cost_usd: 0.25` became `cost_microusd: 250000`."""
            state["cost_microusd"] = round(state.pop("cost_usd") * 1_000_000)

    def __init__(self) -> None:
        self.cost_microusd = 0


OLD_LOG = Path(__file__).with_name("metering_v1.jsonl")


def test_a_log_written_by_version_1_replays_and_goes_on_as_version_2() -> None:
    aggregate: Any = None
    for line in OLD_LOG.read_bytes().splitlines():
        old = orjson.loads(line)
        nonce = os.urandom(12)
        bound = f"acme/u-1|{old['originator_id']}|{old['originator_version']}|{old['topic']}".encode()
        envelope = Envelope(
            *Chain("lab", "acme"),
            user="u-1",
            notification_id=old["originator_version"],
            originator_id=old["originator_id"],
            originator_version=old["originator_version"],
            topic=old["topic"],
            recorded_at="2025-06-01T08:00:00.000000Z",
            state=nonce + AESGCM(KEY).encrypt(nonce, old["state"].encode(), bound),
            prev_hash=bytes(32),
        )
        aggregate = MAPPER.open(envelope, KEY).mutate(aggregate)
    assert aggregate.cost_microusd == 250_000 + 1
    aggregate.trigger_event(Metering.Metered, model="scripted", cost_microusd=9)
    (new,) = aggregate.collect_events()
    assert MAPPER.open(stored(new), KEY) == new
