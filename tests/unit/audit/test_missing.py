"""What does not come is asked for at once, and an alarm only when it stays away while somebody looks."""

from __future__ import annotations

from remit_audit.missing import Missing, Range

GAP: Range = ("auth", 4, 6)


class Judged:
    """A judge of ten seconds, and what it did."""

    def __init__(self, *, ask_after: float = 0.0) -> None:
        self.asked: list[Range] = []
        self.overdue: list[tuple[str, int]] = []
        self._missing = Missing(
            seconds=10.0, ask_after=ask_after, ask=lambda *found: self.asked.append(found), overdue=self._tell
        )

    async def look(self, now: float, *ranges: Range) -> None:
        await self._missing.look(ranges, now=now)

    async def _tell(self, service: str, first: int) -> None:
        self.overdue.append((service, first))


async def test_what_comes_before_the_next_look_is_not_even_asked_for() -> None:
    judged = Judged()
    await judged.look(100.0, GAP)
    await judged.look(102.0)
    assert (judged.asked, judged.overdue) == ([], [])


async def test_what_is_missing_at_the_next_look_is_asked_for_and_no_alarm() -> None:
    judged = Judged()
    for now in (100.0, 102.0, 104.0, 106.0, 108.0):
        await judged.look(now, GAP)
    assert judged.asked == [GAP] * 4
    assert judged.overdue == []


async def test_what_may_be_on_its_way_yet_is_asked_for_a_little_later() -> None:
    judged = Judged(ask_after=5.0)
    for now in (100.0, 102.0, 104.0):
        await judged.look(now, GAP)
    assert judged.asked == []
    await judged.look(106.0, GAP)
    assert judged.asked == [GAP]


async def test_what_stays_away_is_an_alarm_once() -> None:
    judged = Judged()
    for second in range(100, 150, 2):
        await judged.look(float(second), ("auth", 4, second))
    assert judged.overdue == [("auth", 4)]


async def test_what_came_and_is_missing_again_counts_from_anew() -> None:
    judged = Judged()
    for now in (100.0, 102.0, 104.0, 106.0, 108.0):
        await judged.look(now, GAP)
    await judged.look(109.0)
    for now in (110.0, 112.0, 114.0):
        await judged.look(now, GAP)
    assert judged.overdue == []


async def test_time_in_which_nobody_could_look_makes_nothing_overdue() -> None:
    judged = Judged()
    await judged.look(100.0, GAP)
    await judged.look(1_000.0, GAP)  # the bus was away
    assert (judged.asked, judged.overdue) == ([GAP], [])
    for now in (1_002.0, 1_004.0, 1_006.0, 1_008.0):
        await judged.look(now, GAP)
    assert judged.overdue == [("auth", 4)]


async def test_each_range_is_judged_by_itself() -> None:
    judged = Judged()
    for second in range(100, 120, 2):
        late: list[Range] = [("policy", 1, 1)] if second >= 112 else []
        await judged.look(float(second), GAP, ("auth", 9, 9), *late)
    assert judged.overdue == [("auth", 4), ("auth", 9)]
