"""`remit bench`: every number that Remit claims, measured here and now beside its floor."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from rich.text import Text

from remit.cli.numbers import Seconds
from remit.cli.output import emit, out, say, styled, table
from remit_contracts.errors import Unavailable


def bench(*, only: list[str] | None = None, seconds: Seconds = 3.0) -> int:
    """Measure on a platform of its own, and show each number, its goal, and its ratio to the floor of the same run.

    Exits 1 when a goal was missed. Numbers on a busy machine are worth little: nothing else should run.

    Parameters
    ----------
    only
        Names of rows to measure; all by default.
    seconds
        How long each load lasts.
    """
    found = next(iter(entry_points(group="remit.bench", name="run")), None)
    if found is None:
        raise Unavailable("the benchmarks are not installed: run from the repository, `uv run remit bench`")
    report: dict[str, Any] = found.load()(only=only or [], seconds=seconds, progress=say)
    emit(report, lambda: _draw(report))
    return 0 if all(row["met"] is not False for row in report["rows"]) else 1


def _draw(report: dict[str, Any]) -> None:
    out.print(Text(f"floor F = {report['floor_ms']:.3f} ms (p50 of a NATS echo + p50 of a JetStream publish)"))
    table(
        ["what", "value", "unit", "ratio", "goal", "met"],
        [
            (
                row["name"],
                f"{row['value']:.3g}",
                row["unit"],
                "" if row["ratio"] is None else f"{row['ratio']:.2f}",
                row["goal"],
                "" if row["met"] is None else styled("ok" if row["met"] else "failed"),
            )
            for row in report["rows"]
        ],
    )
