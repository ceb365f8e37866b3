"""A row of the report, and the statistics that all rows share."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number. `name` is `key: what it includes`; `ratio` is to the floor, or as the name says.

    `goal` is text such as `<= 8 F`; `met` is None for what is only told.
    """

    name: str
    value: float
    unit: str
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None

    @property
    def key(self) -> str:
        """What `--only` names."""
        return self.name.partition(":")[0]

    def as_dict(self) -> dict[str, Any]:
        """The row as `remit bench --output json` prints it."""
        return asdict(self)


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample below which `share` (0 to 1) of them lie; the last one for 1. Raises ValueError without samples."""
    if not samples:
        raise ValueError("nothing was measured")
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(passes: Sequence[float]) -> float:
    """The middle of several passes."""
    return statistics.median(passes)
