"""A used permit id: never usable again, forgotten only when its permit no longer matters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remit_credential_broker.used_permits import KEPT_SECONDS, UsedPermits


def test_a_permit_is_taken_once() -> None:
    used = UsedPermits()
    assert used.take("a", expires=15, now=0)
    assert not used.take("a", expires=15, now=1)


def test_what_is_forgotten_is_still_refused_by_a_clock_that_was_set_back() -> None:
    used = UsedPermits()
    assert used.take("a", expires=15, now=0)
    assert used.take("b", expires=30 + KEPT_SECONDS, now=16 + KEPT_SECONDS)
    assert "a" not in used
    assert not used.take("a", expires=15, now=1)


def test_memory_does_not_grow_with_time() -> None:
    used = UsedPermits()
    for second in range(10_000):
        assert used.take(str(second), expires=second + 15, now=second)
    assert len(used) <= 15 + KEPT_SECONDS + 1


uses = st.lists(st.tuples(st.integers(0, 20), st.floats(-200, 200)), max_size=60)


@given(uses)
def test_no_permit_is_ever_taken_twice_whatever_the_clock_does(steps: list[tuple[int, float]]) -> None:
    """Permit n expires at 15 n; the clock jumps about."""
    used, taken = UsedPermits(), set()
    for number, now in steps:
        if used.take(str(number), expires=15.0 * number, now=now):
            assert number not in taken
            taken.add(number)
