"""What is said after somebody was shut out: it is done, and perhaps not every connection is cut off yet."""

from __future__ import annotations

from typing import Any

from remit.cli.output import emit, pairs, say

NOT_ALL_CUT = 1
"""Exit code when it is done and connections are left. Not 5: that says that a part did not answer."""


def show(answer: dict[str, Any], done: str) -> int:
    """Show the answer of auth to what is `done`, in words; the exit code."""
    emit(answer, lambda: pairs(answer))
    left = answer["connections_left"]
    if left == 0:
        return 0
    which = "which connections are live is not known" if left is None else f"live connections left: {left}"
    say(f"{done}, but {which}; auth cuts them off as soon as the bus server lets it", style="yellow")
    return NOT_ALL_CUT
