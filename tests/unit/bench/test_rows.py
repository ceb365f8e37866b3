"""What the numbers of the report are made of."""

from __future__ import annotations

import orjson
import pytest

from remit_bench import loads, report, saves, starting, usage
from remit_bench.rows import Row, median, percentile
from remit_contracts.errors import MalformedCommand

KEYS = {"name", "value", "unit", "ratio", "goal", "met"}
MEGABYTE = 1024 * 1024


def passes(**values: list[float]) -> loads.Passes:
    """One measurement a pass."""
    return [dict(zip(values, each, strict=True)) for each in zip(*values.values(), strict=True)]


def test_a_percentile_is_the_sample_that_so_many_lie_below() -> None:
    samples = [float(number) for number in range(100)]
    assert percentile(samples, 0.5) == 50
    assert percentile(samples, 0.99) == 99
    assert percentile([7.0], 0.99) == 7


def test_a_percentile_of_nothing_is_no_number() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 0.5)


def test_one_slow_pass_does_not_move_the_median() -> None:
    assert median([1.0, 1.1, 9.0]) == 1.1


def test_a_call_is_judged_by_the_floor_of_its_own_pass() -> None:
    slow_machine = passes(p50=[0.008, 0.016, 0.004], floor=[0.001, 0.002, 0.0005])
    (row,) = loads.of("one", slow_machine, engine="embedded")
    assert row.ratio == pytest.approx(8.0)
    assert row.met is True
    assert row.value == pytest.approx(8.0)


def test_a_call_over_eight_floors_misses_its_goal() -> None:
    (row,) = loads.of("one", passes(p50=[0.0081], floor=[0.001]), engine="embedded")
    assert row.met is False


@pytest.mark.parametrize(("calls", "met"), [(1000.0, True), (999.0, False)])
def test_calls_a_second_are_judged_as_they_are(calls: float, met: bool) -> None:
    measured = passes(calls_a_second=[calls], floor_calls_a_second=[10_000.0], cpu=[0.0015])
    row, failed, cpu = loads.of("many", measured, engine="embedded")
    assert row.met is met
    assert (failed.value, failed.met) == (0, True)
    assert row.ratio == pytest.approx(calls / 10_000)
    assert (cpu.value, cpu.unit, cpu.met) == (pytest.approx(1.5), "ms", None)


def test_a_load_in_which_a_call_was_refused_meets_no_goal() -> None:
    measured = passes(
        calls_a_second=[5000.0], floor_calls_a_second=[10_000.0], cpu=[0.001], failed=[1.0], p50=[0.001], floor=[0.001]
    )
    assert [row.met for row in loads.of("many", measured, engine="embedded")] == [False, False, None]
    assert loads.of("one", measured, engine="embedded")[0].met is False


@pytest.mark.parametrize(("beside", "met"), [(0.020, True), (0.021, False)])
def test_fairness_is_the_quiet_users_p99_over_its_p99_alone(beside: float, met: bool) -> None:
    (row,) = loads.of("fair", passes(beside_p99=[beside], alone_p99=[0.010]), engine="embedded")
    assert row.met is met
    assert row.ratio == pytest.approx(beside / 0.010)


def test_a_decision_is_judged_by_the_millisecond_for_either_engine() -> None:
    for engine in ("embedded", "opa"):
        (row,) = loads.of("decide", passes(p50=[0.0011], floor=[0.0004]), engine=engine)
        assert row.met is False


def test_calls_through_opa_are_told_and_not_judged() -> None:
    (row,) = loads.of("one", passes(p50=[1.0], floor=[0.001]), engine="opa")
    assert row.met is None
    assert row.key == "call-opa"


def test_memory_is_judged_with_shared_pages_counted_once() -> None:
    rows = starting.rows([4.0, 9.0, 5.0], usage.Memory(resident=900 * MEGABYTE, shared=300 * MEGABYTE))
    up, memory, resident = rows
    assert (up.value, up.met) == (5.0, True)
    assert (memory.value, memory.met) == (300.0, True)
    assert (resident.value, resident.met) == (900.0, None)


def test_a_row_goes_out_as_json_with_the_fields_that_the_command_line_draws() -> None:
    row = Row(name="up: anything", value=1.5, unit="s", goal="<= 5 s", met=True)
    assert set(orjson.loads(orjson.dumps(row.as_dict()))) == KEYS
    assert row.key == "up"


def test_a_row_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(MalformedCommand, match=r"no row speed.*there are: up, memory"):
        report.run(only=["speed"], seconds=1.0, progress=lambda _: None)


def test_every_row_has_a_key_of_its_own() -> None:
    assert len(report.keys()) == len(set(report.keys()))


def test_only_what_is_asked_for_is_measured() -> None:
    said: list[str] = []
    found = report.run(only=["saves"], seconds=0.15, progress=said.append)
    (row,) = found["rows"]
    assert row["name"].startswith("saves:")
    assert row["value"] > 0
    assert said == ["saving events"]
    assert found["floor_ms"] == 0.0


def test_both_sides_of_the_event_store_row_store_what_they_count(tmp_path) -> None:
    import asyncio
    import sqlite3

    (tmp_path / "a").mkdir()
    a_second = saves.library_saves_a_second(tmp_path / "a", 0.1)
    ours = asyncio.run(saves.store_saves_a_second(tmp_path / "a", 0.1))
    assert a_second > 0
    assert ours > 0
    for name in ("library", "store"):
        with sqlite3.connect(tmp_path / "a" / f"{name}.sqlite") as database:
            (count,) = database.execute("SELECT count(*) FROM stored_events").fetchone()
        database.close()
        assert count > 0
