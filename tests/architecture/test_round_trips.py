"""No source waits on the client library's own `flush` or `rtt`: see remit_chassis.round_trip."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAITED_ON = re.compile(r"await \S+\.(?:flush|rtt)\(")


def test_nobody_waits_on_a_flush_that_a_cancellation_could_reach() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("chassis", "infra", "sdk", "services")
        for path in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if WAITED_ON.search(line)
    ]
    assert found == []
