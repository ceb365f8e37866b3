"""What works on a home's files, of a stopped home or of tools: found by name in the entry points `remit.offline`,
whoever provides it."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from remit.cli.context import current
from remit_contracts.errors import Unavailable


def offline(name: str, /, *, home: Path | None = None, **arguments: Any) -> dict[str, Any]:
    """Call the offline command of that name on `home`, or on the current one.

    Raises HomeRefused, and Unavailable when the command's distribution is not installed.
    """
    from remit_infra.home import Home

    path = Home.open_to_read(home or current.home).path
    for found in entry_points(group="remit.offline", name=name):
        result: dict[str, Any] = found.load()(home=path, **arguments)
        return result
    raise Unavailable(f"no installed distribution offers {name!r} offline: install the platform's services")
