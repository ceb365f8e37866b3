"""What every service says of itself, for `up`, `status` and `doctor`."""

from __future__ import annotations

import asyncio
from typing import Any

from remit.cli.installation import installer
from remit_contracts.errors import Tampered, Unavailable, refusal_from
from remit_contracts.subjects import SERVICES

WAY_OUT = (
    "`remit audit check` tells which copy is at fault; then stop, put a whole copy of that store in its place, or take "
    "that stream away if it is the one that is wrong, and start again (infra/README.md)"
)
"""Of a tenant whose store and stream contradict each other."""


def reports() -> dict[str, dict[str, Any]]:
    """Each service's health; raises Unavailable when nothing runs, and NotSignedIn without the installer's key."""

    async def ask() -> dict[str, dict[str, Any]]:
        told: dict[str, dict[str, Any]] = {}
        async with installer() as office:
            for service in SERVICES:
                try:
                    told[service] = await office.health(service)
                except Unavailable as fault:
                    silence = {"ok": False, "detail": fault.reason, "code": fault.refusal_code}
                    told[service] = {"ready": False, "checks": {"bus": silence}}
        return told

    return asyncio.run(ask())


def contradicted(told: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """`{"service", "tenant", "reason", "way_out"}` of every tenant that a service does not serve."""
    return [
        {"service": service, "tenant": tenant, "reason": reason, "way_out": WAY_OUT}
        for service, report in told.items()
        for tenant, reason in report.get("contradicted", {}).items()
    ]


def exit_code(told: dict[str, dict[str, Any]]) -> int:
    """0 when all is well, 6 when something was tampered with, 5 when a service is not ready."""
    tampered = Tampered("").exit_code
    codes = [check.get("code", "") for report in told.values() for check in report["checks"].values()]
    if contradicted(told) or any(refusal_from({"error": {"code": code}}).exit_code == tampered for code in codes):
        return tampered
    return 0 if all(report["ready"] for report in told.values()) else Unavailable("").exit_code
