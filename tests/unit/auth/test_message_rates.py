"""Rates of messages: who is over the bound, which connections are cut for it, and for how long who is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from remit_auth.live_connections import Place
from remit_auth.message_rates import (
    FIRST_REFUSED_SECONDS,
    FORGOTTEN_SECONDS,
    LONGEST_REFUSED_SECONDS,
    Counted,
    Flood,
    Listed,
    MessageRates,
    TooManyMessages,
)
from remit_contracts.identity import Caller

ANN, ANN_TOO, BOB = Caller("acme", "u-1", "s-1"), Caller("acme", "u-1", "s-2"), Caller("acme", "u-2", "s-3")
NAMESAKE = Caller("globex", "u-1", "s-4")
BOUND = 100


class Rates(MessageRates):
    """One server, N1, is looked at; `now` is this process's clock."""

    def __init__(self) -> None:
        super().__init__(per_second=BOUND, monotonic=lambda: self.now)
        self.now = 1000.0

    def look(self, at: float, counted: Mapping[int, tuple[Caller, int]], *, server: str = "N1") -> list[Flood]:
        return self.looked({server: listed(at, counted, server=server)})


def listed(at: float, counted: Mapping[int, tuple[Caller, int]], *, server: str = "N1") -> Listed:
    return Listed(at, {Place(server, number): Counted(*each) for number, each in counted.items()})


@pytest.fixture
def rates() -> Rates:
    return Rates()


def test_a_user_over_the_bound_is_cut_and_refused_and_others_are_not(rates: Rates) -> None:
    assert rates.look(0.0, {1: (ANN, 500), 2: (BOB, 0), 3: (NAMESAKE, 0)}) == []
    (flood,) = rates.look(1.0, {1: (ANN, 601), 2: (BOB, 100), 3: (NAMESAKE, 100)})
    assert (flood.tenant, flood.user, flood.messages_per_second) == ("acme", "u-1", 101)
    assert flood.connections == {Place("N1", 1): ANN}
    assert flood.refusal.refusal_code == "overloaded.messages"
    assert flood.refusal.retry_after_seconds == FIRST_REFUSED_SECONDS
    for caller in (ANN, ANN_TOO):
        with pytest.raises(TooManyMessages, match="more than 100 messages a second"):
            rates.admit(caller)
    rates.admit(BOB)
    rates.admit(NAMESAKE)


def test_a_rate_is_over_the_time_between_two_looks_by_the_servers_clock(rates: Rates) -> None:
    rates.look(0.0, {1: (ANN, 0)})
    assert rates.look(2.0, {1: (ANN, 200)}) == []
    assert len(rates.look(3.0, {1: (ANN, 301)})) == 1


def test_less_than_a_second_is_judged_with_what_follows(rates: Rates) -> None:
    rates.look(0.0, {1: (ANN, 0)})
    assert rates.look(0.5, {1: (ANN, 99)}) == []
    assert len(rates.look(1.0, {1: (ANN, 198)})) == 1


def test_many_connections_together_say_no_more_than_one_and_the_busiest_are_cut(rates: Rates) -> None:
    rates.look(0.0, {1: (ANN, 0), 2: (ANN_TOO, 0), 3: (ANN, 0)})
    (flood,) = rates.look(1.0, {1: (ANN, 40), 2: (ANN_TOO, 90), 3: (ANN, 50)})
    assert flood.messages_per_second == 180
    assert flood.connections == {Place("N1", 2): ANN_TOO}


def test_connections_at_several_servers_count_together(rates: Rates) -> None:
    for at, messages in ((0.0, 0), (1.0, 60)):
        floods = rates.looked(
            {"N1": listed(at, {1: (ANN, messages)}), "N2": listed(at + 50, {1: (ANN, messages)}, server="N2")}
        )
    assert [flood.messages_per_second for flood in floods] == [120]


def test_a_new_connection_counts_from_its_beginning(rates: Rates) -> None:
    rates.look(0.0, {})
    assert len(rates.look(1.0, {7: (ANN, 101)})) == 1


def test_a_connection_that_ended_between_two_looks_counts_once(rates: Rates) -> None:
    rates.look(0.0, {1: (ANN, 1000)})
    rates.ended(Place("N1", 1), ANN, 1060)
    assert rates.look(1.0, {1: (ANN, 1060), 2: (ANN, 30)}) == []  # the server's list may still name it
    rates.ended(Place("N1", 2), ANN, 131)
    (flood,) = rates.look(2.0, {3: (ANN_TOO, 0)})
    assert (flood.messages_per_second, dict(flood.connections)) == (101, {})
    with pytest.raises(TooManyMessages):
        rates.admit(ANN)


def test_what_was_said_while_nobody_looked_is_held_against_nobody(rates: Rates) -> None:
    rates.look(0.0, {1: (ANN, 0)})
    rates.unknown()
    rates.ended(Place("N1", 2), BOB, 10**6)
    assert rates.look(60.0, {1: (ANN, 10**6)}) == []
    assert rates.look(61.0, {1: (ANN, 10**6)}) == []


def test_a_clock_that_is_set_back_starts_anew(rates: Rates) -> None:
    rates.look(100.0, {1: (ANN, 0)})
    assert rates.look(50.0, {1: (ANN, 10**6)}) == []
    assert len(rates.look(51.0, {1: (ANN, 10**6 + 101)})) == 1


def test_who_floods_again_is_refused_for_twice_as_long_up_to_a_bound_until_it_is_forgotten(rates: Rates) -> None:
    seconds = []
    for count in range(9):
        rates.look(2.0 * count, {count: (ANN, 0)})
        (flood,) = rates.look(2.0 * count + 1, {count: (ANN, 101)})
        seconds.append(flood.refusal.retry_after_seconds)
        rates.now += seconds[-1] or 0
        rates.admit(ANN)
    assert seconds == [min(FIRST_REFUSED_SECONDS * 2**count, LONGEST_REFUSED_SECONDS) for count in range(9)]
    rates.now += FORGOTTEN_SECONDS
    rates.look(100.0, {1: (ANN, 0)})
    (flood,) = rates.look(101.0, {1: (ANN, 101)})
    assert flood.refusal.retry_after_seconds == FIRST_REFUSED_SECONDS
