"""How long `remit up` takes, and what all of it holds in memory when nothing is asked of it."""

from __future__ import annotations

import time
from pathlib import Path

from remit_bench import usage
from remit_bench.platform import as_installed
from remit_bench.rows import Row, median

STARTS = 3
LATE_LOADING_SECONDS = 5.0
"""What loads after readiness (the agents' framework) is loaded by then, and counts."""
GOAL_SECONDS = 5.0
GOAL_MEGABYTES = 600
MEGABYTE = 1024 * 1024


def measure(directory: Path) -> list[Row]:
    """Start `remit up` on new homes; the first start is not counted, since it may compile modules."""
    seconds: list[float] = []
    sizes: list[usage.Memory] = []
    for number in range(STARTS + 1):
        with as_installed(directory / f"start-{number}" / "home") as platform:
            if number:
                seconds.append(platform.seconds_to_ready)
            if number == STARTS:
                time.sleep(LATE_LOADING_SECONDS)
                sizes.append(usage.memory(platform.pid))
    return rows(seconds, sizes[-1])


def rows(seconds: list[float], size: usage.Memory) -> list[Row]:
    """Two judged rows, and the memory as it looks when shared pages are counted once for every process."""
    ready = median(seconds)
    megabytes = size.shared / MEGABYTE
    return [
        Row(
            name="up: `remit up` on a new home, from the command to ready",
            value=ready,
            unit="s",
            goal="<= 5 s",
            met=ready <= GOAL_SECONDS,
        ),
        Row(
            name="memory: all processes idle, shared pages divided among them (PSS)",
            value=megabytes,
            unit="MB",
            goal="<= 600 MB",
            met=megabytes <= GOAL_MEGABYTES,
        ),
        Row(
            name="memory-rss: the same, shared pages counted in every process (RSS)",
            value=size.resident / MEGABYTE,
            unit="MB",
        ),
    ]
