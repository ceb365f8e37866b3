"""Counting live connections: what is granted, what the servers tell, and what their lists correct."""

from __future__ import annotations

import pytest

from remit_auth.live_connections import GRACE_SECONDS, LiveConnections, Place, TooManyConnections
from remit_auth.system_account import caller_named, name_of
from remit_contracts.errors import Unavailable
from remit_contracts.identity import Caller

ANN, ANN_TOO, BOB = Caller("acme", "u-1", "s-1"), Caller("acme", "u-1", "s-2"), Caller("acme", "u-2", "s-3")
NAMESAKE = Caller("globex", "u-1", "s-4")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def place(number: int, server: str = "N1") -> Place:
    return Place(server, number)


def known(clock: Clock | None = None, *, cap: int = 2) -> LiveConnections:
    live = LiveConnections(cap=cap, monotonic=clock or Clock())
    live.surveyed(live.begin_survey(), {})
    return live


def test_nobody_is_granted_a_place_before_the_servers_were_asked_and_after_their_line_was_lost() -> None:
    live = LiveConnections(cap=2, monotonic=Clock())
    with pytest.raises(Unavailable):
        live.grant(place(1), ANN)
    live.surveyed(live.begin_survey(), {})
    live.grant(place(1), ANN)
    live.lost()
    with pytest.raises(Unavailable):
        live.grant(place(2), ANN)


def test_the_cap_counts_all_sessions_of_a_user_and_no_other_user() -> None:
    live = known()
    live.grant(place(1), ANN)
    live.grant(place(2), ANN_TOO)
    with pytest.raises(TooManyConnections, match="2 connections"):
        live.grant(place(3), ANN)
    live.grant(place(3), BOB)
    live.grant(place(4), NAMESAKE)


def test_one_connection_counts_once_however_often_it_is_told() -> None:
    live = known()
    for _ in range(3):
        live.grant(place(1), ANN)
        live.opened(place(1), ANN)
    live.grant(place(2), ANN)
    assert len(live) == 2


def test_an_ended_connection_frees_its_place() -> None:
    live = known(cap=1)
    live.grant(place(1), ANN)
    live.closed(place(1))
    live.closed(place(1))
    live.grant(place(2), ANN)
    assert list(live) == [(place(2), ANN)]


def test_the_same_number_on_two_servers_is_two_connections() -> None:
    live = known()
    live.opened(place(1, "N1"), ANN)
    live.opened(place(1, "N2"), ANN)
    with pytest.raises(TooManyConnections):
        live.grant(place(2, "N1"), ANN)


def test_connections_from_before_a_start_are_counted_from_the_servers_lists() -> None:
    live = LiveConnections(cap=2, monotonic=Clock())
    live.surveyed(live.begin_survey(), {place(1): ANN, place(2): ANN, place(3): BOB})
    with pytest.raises(TooManyConnections):
        live.grant(place(4), ANN)


def test_what_no_server_lists_any_more_is_gone_also_when_its_server_is() -> None:
    clock = Clock()
    live = known(clock)
    live.opened(place(1, "N1"), ANN)
    live.opened(place(2, "N2"), ANN)
    clock.now += 1
    live.surveyed(live.begin_survey(), {place(2, "N2"): ANN})
    assert list(live) == [(place(2, "N2"), ANN)]


def test_what_opens_while_the_servers_are_asked_stays_and_what_ends_meanwhile_does_not_come_back() -> None:
    clock = Clock()
    live = known(clock)
    live.opened(place(1), ANN)
    clock.now += 1
    began_at = live.begin_survey()
    clock.now += 1
    live.closed(place(1))
    live.opened(place(2), ANN)
    live.surveyed(began_at, {place(1): ANN})
    assert list(live) == [(place(2), ANN)]


def test_a_grant_that_never_became_a_connection_is_forgotten_after_its_grace_and_not_before() -> None:
    clock = Clock()
    live = known(clock)
    live.grant(place(1), ANN)
    clock.now += GRACE_SECONDS / 2
    live.surveyed(live.begin_survey(), {})
    assert place(1) in live
    clock.now += GRACE_SECONDS
    live.surveyed(live.begin_survey(), {})
    assert place(1) not in live


def test_a_place_that_is_granted_to_another_counts_for_the_other() -> None:
    live = known(cap=1)
    live.grant(place(1), ANN)
    live.grant(place(1), BOB)
    live.grant(place(2), ANN)
    with pytest.raises(TooManyConnections):
        live.grant(place(3), BOB)


@pytest.mark.parametrize("name", ["", "UABC", "acme/u-1", "acme/u-1/s-1/x", "acme//s-1", "a.b/u-1/s-1", None, 7])
def test_what_is_no_users_connection_is_nobodys(name: object) -> None:
    assert caller_named(name) is None


def test_a_users_connection_is_found_by_the_name_that_it_was_given() -> None:
    assert caller_named(name_of(ANN)) == ANN
