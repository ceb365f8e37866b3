"""The services that are installed here, found by their entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Final

from remit_contracts.errors import Refusal

GROUP: Final = "remit.services"


class StartRefused(Refusal):
    """Not everything became ready; what had started was stopped again."""

    code = "start"


def installed_services() -> dict[str, Callable[[], None]]:
    """Every installed service, imported here so that children share memory. Raises StartRefused for a broken one."""
    services: dict[str, Callable[[], None]] = {}
    for entry in sorted(entry_points(group=GROUP)):
        try:
            services[entry.name] = entry.load()
        except Exception as fault:
            raise StartRefused(f"the service {entry.name} cannot be imported: {fault}") from fault
    if not services:
        raise StartRefused("no service is installed: install the remit platform, not the client alone")
    return services
