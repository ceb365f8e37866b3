"""Saying loudly, once, and on record, that something is wrong."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import structlog

from remit_audit.domain import Alarm, alarm_id
from remit_audit.findings import Finding
from remit_contracts.errors import Conflict, Refusal, Tampered
from remit_contracts.identity import SYSTEM_USER

if TYPE_CHECKING:
    from remit_chassis.service import Service

MOST_REMEMBERED = 10_000


class Alarms:
    """Logs each finding as an error and stores it as an event of the tenant's `system`.

    The log comes first and needs nothing. What cannot be stored now, because the disk or the broker's keys are away, is
    tried again by `retry`. The same matter in the same circumstances (`episode`) is raised once.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._waiting: OrderedDict[tuple[str, Finding, str], None] = OrderedDict()
        self._raised: OrderedDict[tuple[str, Finding, str], None] = OrderedDict()

    async def raise_(self, tenant: str, finding: Finding, episode: str = "") -> None:
        """Log the finding, and store it unless it was raised before. Never fails."""
        matter = (tenant, finding, episode)
        if matter in self._raised:
            return
        self._raised[matter] = None
        if len(self._raised) > MOST_REMEMBERED:
            self._raised.popitem(last=False)
        structlog.get_logger().error(
            "audit.alarm",
            tenant=tenant,
            code=finding.code,
            found_in=finding.copy_name,
            origin=finding.service,
            notification_id=finding.notification_id,
            reason=finding.reason,
        )
        self._waiting[matter] = None
        await self.retry()

    async def retry(self) -> None:
        """Store what could not be stored before."""
        for matter in list(self._waiting):
            tenant, finding, _ = matter
            alarm = Alarm.about(
                alarm_id=alarm_id(*matter),
                found_in=finding.copy_name,
                code=finding.code,
                reason=finding.reason,
                service=finding.service,
                notification_id=finding.notification_id,
                at=self._service.clock(),
            )
            try:
                await self._service.stores.of(tenant).save(alarm, user=SYSTEM_USER)
            except Conflict:
                pass  # it was stored before a restart
            except Tampered:  # our own store of that tenant: it is in the log, and holds up nobody else's
                continue
            except Refusal as refusal:
                structlog.get_logger().warning(
                    "audit.alarm_waits", tenant=tenant, code=finding.code, reason=refusal.reason
                )
                return
            self._waiting.pop(matter, None)
