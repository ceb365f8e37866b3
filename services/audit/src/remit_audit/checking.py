"""The check of all copies while the platform runs: stores, streams, ledgers, permits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from remit_audit.check import RUNTIME, StreamCheck, TenantCheck, report_of
from remit_audit.findings import Finding
from remit_audit.ledger_reader import LedgerReader
from remit_audit.sweep import read_stream
from remit_chassis.permits import PermitVerifier
from remit_chassis.settings import read_hex_secret
from remit_chassis.streams import check_stream, stream_info
from remit_contracts.errors import Absent
from remit_contracts.identity import is_label
from remit_contracts.subjects import SERVICES, events_stream
from remit_contracts.trails import AuditReport, CheckCopies

if TYPE_CHECKING:
    from remit_audit.consumer import Consumer
    from remit_audit.settings import AuditSettings
    from remit_chassis.service import Service


class CopyCheck:
    """Runs one check at a time: each reads everything there is."""

    def __init__(self, service: Service, consumer: Consumer, settings: AuditSettings, public_key: bytes) -> None:
        self._service = service
        self._consumer = consumer
        self._settings = settings
        self._public_key = public_key
        self._one = asyncio.Lock()

    async def run(self, command: CheckCopies) -> AuditReport:
        """The report; raises Unavailable when a part that is needed (the bus, the keys) does not answer."""
        async with self._one:
            tenants = [command.tenant] if command.tenant else sorted(await asyncio.to_thread(self._tenants))
            checks: list[TenantCheck] = []
            notes: list[str] = []
            for tenant in tenants:
                checks.append(await self._check(tenant, notes))
        return report_of(checks, notes)

    async def _check(self, tenant: str, notes: list[str]) -> TenantCheck:
        check = TenantCheck(tenant)
        path = self._settings.ledger_dir / f"{tenant}.sqlite"
        await self._consumer.follow(tenant)
        if reason := self._consumer.refused(tenant):
            check.add([Finding("ledger", "checkpoint.contradicted", f"it takes no events: {reason}")])
        try:
            reader = LedgerReader(path, tenant)
        except Absent:
            await asyncio.to_thread(check.check_stores, self._settings.stores_dir, None, stopped=False)
            stream = [f"the stream {events_stream(tenant)}"] if tenant in self._consumer.followers else []
            check.require_ledger(path, stopped=False, known_by=stream)
            return check
        try:
            await asyncio.to_thread(check.check_ledger, reader, self._public_key)
            await asyncio.to_thread(check.check_stores, self._settings.stores_dir, reader, stopped=False)
            await self._check_heads(check, reader, notes)
            keys = {user: await self._key(tenant, user) for user in await asyncio.to_thread(reader.users_of, RUNTIME)}
            verifier = PermitVerifier(read_hex_secret(self._settings.permit_public_file))
            await asyncio.to_thread(check.check_effects, reader, verifier, keys)
            await self._check_stream(check, reader)
        finally:
            reader.close()
        return check

    async def _check_heads(self, check: TenantCheck, reader: LedgerReader, notes: list[str]) -> None:
        """Stores that are no files here are compared by their heads, whose hash stands for all before it."""
        watch = self._consumer.watches.get(check.tenant)
        elsewhere = [service for service in SERVICES if service not in check.stores]
        heads = await watch.heads() if watch and elsewhere else {}
        for service in elsewhere:
            if service not in heads:
                check.unchecked.append(f"the store of {service}: it did not say how far its log goes")
                continue
            check.heads.add(service)
            notes.append(f"{check.tenant}: the store of {service} was compared by its head only")
            number, digest = heads[service]
            check.count_pending(service, number)
            known = await asyncio.to_thread(reader.hash_of, service, number) if number else None
            if known not in (None, digest):
                reason = f"its log's head is {digest.hex()}, and the ledger has {known.hex() if known else ''}"
                check.add([Finding("store", "record.forked", reason, service, number)])

    async def _check_stream(self, check: TenantCheck, reader: LedgerReader) -> None:
        stream = events_stream(check.tenant)
        compared = await asyncio.to_thread(StreamCheck, reader)
        info = await stream_info(self._service.nc, stream)
        if info is None:
            check.add([Finding("stream", "stream.replaced", f"the stream {stream} is gone")])
            return
        check.checked.add("stream")
        check.add(Finding("stream", "stream.unfit", fault) for fault in check_stream(info))
        last = info["state"]["last_seq"]
        async for read in read_stream(self._service.nc, stream, check.tenant, 1, last):
            check.add(compared.follow(read))
        check.add(compared.missing())

    async def _key(self, tenant: str, user: str) -> bytes | None:
        try:
            return await self._service.user_keys.key(tenant, user)
        except Absent as erased:
            if erased.refusal_code != "absent.erased":
                raise
            return None

    def _tenants(self) -> set[str]:
        found = {path.stem for path in self._settings.ledger_dir.glob("*.sqlite")}
        found |= {path.stem for path in self._settings.stores_dir.glob("*/*.sqlite")}
        return {tenant for tenant in found | self._consumer.followers.keys() if is_label(tenant)}
