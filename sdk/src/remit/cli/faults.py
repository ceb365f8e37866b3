"""Records and files that contradict one another, one a line, for `audit check` and `trail verify`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.text import Text

from remit.cli.output import inert, out


def draw_faults(faults: Iterable[dict[str, Any]]) -> None:
    """Each as `COPY SERVICE #NUMBER CODE: REASON`, without what does not apply to it."""
    for fault in faults:
        number = fault.get("notification_id")
        place = (fault.get("copy"), fault.get("service"), None if number is None else f"#{number}")
        where = " ".join(str(part) for part in place if part)
        out.print(Text("  "), Text(where, style="red"), inert(f" {fault.get('code')}: {fault.get('reason')}"), sep="")
