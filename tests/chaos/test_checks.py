"""The checks of the campaign find what they are for: each test breaks one thing in a history that is whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from chaos import record as topics
from chaos.checks import (
    Runs,
    copies_without_a_gap,
    everybody_acted_as_themselves,
    no_effect_before_its_authorisation,
    no_effect_twice_and_each_outcome_true,
    one_end_for_each_run,
)
from chaos.effect_desk import Effect
from chaos.load import TOOL, Asked, History

from remit_contracts.events import GENESIS, Envelope

RUN = "a" * 32
KEY = f"{RUN}:1"
USER, WHO = "u-1", "acme/analyst"

Said = tuple[str, dict[str, Any]]
WHOLE: tuple[Said, ...] = (
    (topics.ACCEPTED, {"idempotency_key": "k"}),
    (topics.CALL_AUTHORIZED, {"ordinal": 1, "tool": TOOL}),
    (topics.CALL_COMPLETED, {"ordinal": 1, "ok": True, "error": None}),
    (topics.COMPLETED, {}),
)


def chain(*said: str, service: str = topics.RUNTIME) -> list[Envelope]:
    """Linked events of those topics, a second apart."""
    events: list[Envelope] = []
    for number, topic in enumerate(said, 1):
        previous = events[-1].hash if events else GENESIS
        at = f"2026-11-24T12:00:{number:02}.000000Z"
        events.append(Envelope(service, "acme", USER, number, RUN, number, topic, at, b"", previous).sealed())
    return events


def runs_of(*said: Said) -> Runs:
    runs = Runs()
    for envelope, (_, fields) in zip(chain(*(topic for topic, _ in said)), said, strict=True):
        runs._follow(envelope, fields)
    return runs


def effect(*, at: int = 10, who: str = WHO, key: str = KEY, authorised: bool | None = True) -> Effect:
    return Effect(key, who, f"2026-11-24T12:00:{at:02}.000000Z", authorised)


def told(run: str = RUN, seen: str = "completed") -> History:
    return History(asked=[Asked(WHO, "k", 1, run, seen)])


def found(runs: Runs, effects: list[Effect], history: History) -> Iterator[str]:
    yield from one_end_for_each_run(runs, history)
    yield from no_effect_before_its_authorisation(runs, effects)
    yield from no_effect_twice_and_each_outcome_true(runs, effects)
    yield from everybody_acted_as_themselves(runs, effects, {USER: WHO})


def test_a_whole_history_has_no_fault():
    assert list(found(runs_of(*WHOLE), [effect()], told())) == []


@pytest.mark.parametrize(
    ("said", "effects", "history", "fault"),
    [
        (WHOLE[:-1], [effect()], told(seen=""), "has the ends [], and needs exactly one"),
        ((*WHOLE, WHOLE[-1]), [effect()], told(seen=""), "follows the end of run"),
        (WHOLE, [effect()], told(run="b" * 32), "no store has its acceptance"),
        (WHOLE, [effect()], told(seen="cancelled"), "saw run"),
        (WHOLE, [effect(authorised=False)], told(), "not in the store yet"),
        (WHOLE, [effect(at=1)], told(), "authorised at"),
        (WHOLE, [effect(), effect(key=f"{RUN}:2")], told(), "has no authorisation"),
        (WHOLE, [effect(), effect()], told(), "happened 2 times"),
        (WHOLE, [], told(), "the desk never did it"),
        (WHOLE, [effect(who="globex/analyst")], told(), "with the credential of globex/analyst"),
        ((WHOLE[0], WHOLE[1], WHOLE[3]), [effect()], told(), "has the outcomes [], and needs exactly one"),
        (
            (
                *WHOLE[:2],
                (topics.CALL_COMPLETED, {"ordinal": 1, "ok": False, "error": {"code": "unavailable"}}),
                WHOLE[3],
            ),
            [effect()],
            told(),
            "is said to have had no effect",
        ),
        ((WHOLE[0], (topics.CALL_DENIED, WHOLE[1][1]), WHOLE[3]), [effect()], told(), "the denied call"),
    ],
)
def test_each_thing_that_must_not_be_is_named(said, effects, history, fault):
    assert any(fault in sentence for sentence in found(runs_of(*said), effects, history))


class Copies:
    """What `copies_without_a_gap` asks of a record."""

    def __init__(self, store: list[Envelope], ledger: list[Envelope]) -> None:
        self._store, self._ledger = store, ledger

    def services(self, tenant: str) -> list[str]:
        return [topics.RUNTIME]

    def store(self, service: str, tenant: str) -> list[Envelope]:
        return self._store

    def ledger(self, tenant: str) -> list[Envelope]:
        return self._ledger


WRITTEN = chain("a", "b", "c")
OTHER = chain("a", "b", "x")


@pytest.mark.parametrize(
    ("store", "stream", "ledger", "fault"),
    [
        (WRITTEN, WRITTEN, WRITTEN, ""),
        (WRITTEN, [*WRITTEN, WRITTEN[1]], WRITTEN, ""),  # published again
        (WRITTEN, WRITTEN[:2], WRITTEN, "the stream lacks 1 events, first 3"),
        (WRITTEN, WRITTEN, WRITTEN[:2], "the ledger lacks 1 events, first 3"),
        (WRITTEN, WRITTEN, [WRITTEN[0], WRITTEN[2], WRITTEN[1]], "the ledger's order"),
        (WRITTEN, [*WRITTEN[:2], OTHER[2]], WRITTEN, "the stream has other events under [3]"),
        (WRITTEN, [*WRITTEN, OTHER[2]], WRITTEN, "the stream has two events 3"),
        ([WRITTEN[0], WRITTEN[2]], WRITTEN, WRITTEN, "does not follow event 1"),
        (WRITTEN[:2], WRITTEN, WRITTEN, "the ledger has other events under [3]"),
    ],
)
def test_copies_that_differ_are_named(store, stream, ledger, fault):
    faults = list(copies_without_a_gap(Copies(store, ledger), {"acme": stream}, tenant="acme"))
    assert any(fault in sentence for sentence in faults) if fault else not faults
