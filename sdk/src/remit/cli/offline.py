"""What works on a home's files, of a stopped home or of tools: found by name in the entry points `remit.offline`,
whoever provides it."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from remit_contracts.errors import Unavailable


def offline(name: str, /, **arguments: Any) -> dict[str, Any]:
    """Call the offline command of that name; raises Unavailable when its distribution is not installed."""
    for found in entry_points(group="remit.offline", name=name):
        result: dict[str, Any] = found.load()(**arguments)
        return result
    raise Unavailable(f"no installed distribution offers {name!r} offline: install the platform's services")
