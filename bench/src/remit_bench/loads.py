"""Rows from what the driver measured: medians over its passes, ratios to the floor of the same pass."""

from __future__ import annotations

from typing import Any

from remit_bench.rows import Row, median

GOAL_FLOORS = 8.0
GOAL_CALLS = 1000.0
GOAL_FAIRNESS = 2.0
GOAL_DECISION_MILLISECONDS = 1.0

CALL = "function tool: decided, leased, fsynced before and after"
"""What a measured call includes."""

Passes = list[dict[str, float]]


def of(job: str, passes: Passes, *, engine: str) -> list[Row]:
    """The rows of one job of the driver."""
    rows: dict[str, Any] = {"one": _one, "many": _many, "fair": _fair, "decide": _decide}
    made: list[Row] = rows[job](passes, engine)
    return made


def floor_seconds(measured: dict[str, Passes]) -> float | None:
    """F at one in flight, over all passes that measured it."""
    floors = [each["floor"] for job in ("one", "decide") for each in measured.get(job, [])]
    return median(floors) if floors else None


def key(job: str, engine: str) -> str:
    """What `--only` names: the embedded engine's rows have the short names."""
    return job if engine == "embedded" else f"{job}-{engine}"


def _one(passes: Passes, engine: str) -> list[Row]:
    ratio = _median(passes, "p50", "floor")
    return [
        Row(
            name=f"{key('call', engine)}: governed call of a {CALL}; {engine} engine, one at a time, p50",
            value=_median(passes, "p50") * 1e3,
            unit="ms",
            ratio=ratio,
            goal="<= 8 F (later 5 F)" if engine == "embedded" else "",
            met=ratio <= GOAL_FLOORS and not _failed(passes) if engine == "embedded" else None,
        )
    ]


def _many(passes: Passes, engine: str) -> list[Row]:
    calls = _median(passes, "calls_a_second")
    judged = engine == "embedded"
    return [
        Row(
            name=f"{key('calls', engine)}: the same, 64 at once by 64 users; {engine} engine; ratio to echo + publish",
            value=calls,
            unit="calls/s",
            ratio=_median(passes, "calls_a_second", "floor_calls_a_second"),
            goal=">= 1,000/s" if judged else "",
            met=calls >= GOAL_CALLS and not _failed(passes) if judged else None,
        ),
        Row(
            name=f"{key('calls-failed', engine)}: how many of them were refused, in all passes; {engine} engine",
            value=_failed(passes),
            unit="calls",
            goal="0",
            met=not _failed(passes),
        ),
        Row(
            name=f"{key('calls-cpu', engine)}: CPU of all processes for each, ledger and read model too; {engine}",
            value=_median(passes, "cpu") * 1e3,
            unit="ms",
        ),
    ]


def _fair(passes: Passes, engine: str) -> list[Row]:
    ratio = _median(passes, "beside_p99", "alone_p99")
    return [
        Row(
            name=f"{key('fairness', engine)}: a quiet user's p99 beside another's 64 loops; ratio to its p99 alone",
            value=_median(passes, "beside_p99") * 1e3,
            unit="ms",
            ratio=ratio,
            goal="<= 2" if engine == "embedded" else "",
            met=ratio <= GOAL_FAIRNESS if engine == "embedded" else None,
        )
    ]


def _decide(passes: Passes, engine: str) -> list[Row]:
    milliseconds = _median(passes, "p50") * 1e3
    return [
        Row(
            name=f"{key('decision', engine)}: a permitted tool call, whole request on the bus; {engine} engine, p50",
            value=milliseconds,
            unit="ms",
            ratio=_median(passes, "p50", "floor"),
            goal="<= 1 ms",
            met=milliseconds <= GOAL_DECISION_MILLISECONDS,
        )
    ]


def _failed(passes: Passes) -> float:
    return sum(each.get("failed", 0) for each in passes)


def _median(passes: Passes, value: str, over: str = "") -> float:
    return median([each[value] / each[over] if over else each[value] for each in passes])
