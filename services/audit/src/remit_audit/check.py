"""Comparing all copies of a tenant's record: stores, stream and ledger; and each effect with its permit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from remit_audit.effects import EFFECTS, EffectCheck, Keys
from remit_audit.findings import Finding
from remit_audit.ledger_file import checkpoint_file
from remit_audit.ledger_reader import CHUNK, LedgerReader
from remit_audit.store_copy import stores_of
from remit_audit.sweep import Read
from remit_audit.verification import MAX_FINDINGS, Verdict, verify_ledger
from remit_chassis.permits import PermitVerifier
from remit_contracts.errors import Refusal
from remit_contracts.identity import PLATFORM_TENANT
from remit_contracts.subjects import SERVICES
from remit_contracts.trails import AuditReport, CopiesChecked, TenantReport

RUNTIME = "agent-runtime"


@dataclass
class TenantCheck:
    """Gathers what is wrong with one tenant, and what could not be looked at; `report` gives it as it is answered."""

    tenant: str
    entries: int = 0
    checkpoint: str = ""
    pending: int = 0
    effects: int = 0
    effects_checked: int = 0
    erased: int = 0
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    stores: set[str] = field(default_factory=set)
    heads: set[str] = field(default_factory=set)
    checked: set[Literal["ledger", "stream", "permits"]] = field(default_factory=set)
    _heads: dict[str, int] = field(default_factory=dict)

    def add(self, found: Iterable[Finding]) -> None:
        """Keep findings, up to MAX_FINDINGS, each once."""
        for finding in found:
            if len(self.findings) < MAX_FINDINGS and finding not in self.findings:
                self.findings.append(finding)

    def report(self) -> TenantReport:
        """The answer."""
        return TenantReport(
            tenant=self.tenant,
            checked=CopiesChecked(
                ledger="ledger" in self.checked,
                stores=sorted(self.stores),
                heads=sorted(self.heads),
                stream="stream" in self.checked,
                permits="permits" in self.checked,
            ),
            entries=self.entries,
            checkpoint=self.checkpoint,
            pending=self.pending,
            effects_checked=self.effects_checked,
            erased=self.erased,
            faults=[finding.fault() for finding in self.findings],
            unchecked=self.unchecked,
        )

    def check_ledger(self, reader: LedgerReader, public_key: bytes) -> Verdict:
        """Recompute the ledger. What it gets meanwhile is pending: `entries` does not count it."""
        self.checked.add("ledger")
        self._heads = self._heads_of(reader)
        verdict = verify_ledger(reader, public_key)
        self.entries, self.checkpoint = verdict.entries, verdict.note
        self.add(verdict.findings)
        return verdict

    def check_stores(self, stores_dir: Path, reader: LedgerReader | None, *, stopped: bool) -> None:
        """Compare the stores that are files here; `stores` says whose they are."""
        for copy in stores_of(stores_dir, self.tenant, SERVICES):
            self.add(copy.compare(reader, stopped=stopped))
            self.count_pending(copy.service, copy.last)
            self.stores.add(copy.service)
        if stopped:
            gone = sorted(self._heads.keys() - self.stores)
            self.add(Finding("store", "file.damaged", f"the store of {service} is gone", service) for service in gone)

    def count_pending(self, service: str, last: int) -> None:
        """What a service has stored up to number `last` and the checked ledger does not have."""
        self.pending += max(0, last - self._heads.get(service, 0))

    def count_effects(self, reader: LedgerReader) -> None:
        """How many there are to be compared with their permits."""
        try:
            self.effects = reader.count_of(RUNTIME, EFFECTS)
        except Refusal as refusal:
            self.add([Finding("ledger", "file.damaged", refusal.reason)])

    def check_effects(self, reader: LedgerReader, verifier: PermitVerifier, keys: Keys) -> None:
        """Check every effect in the ledger against its permit."""
        self.checked.add("permits")
        effects = EffectCheck(verifier, keys)
        after = -1
        try:
            while page := reader.following(after, CHUNK):
                for entry in page:
                    if entry.envelope.service == RUNTIME:
                        self.add(effects.follow(entry.envelope, entry.index))
                after = page[-1].index
        except Refusal as refusal:
            self.add([Finding("ledger", "file.damaged", refusal.reason)])
        self.effects_checked, self.erased = effects.checked, effects.erased

    def _heads_of(self, reader: LedgerReader) -> dict[str, int]:
        try:
            return {service: number for service, (number, _) in reader.heads().items()}
        except Refusal as refusal:
            self.add([Finding("ledger", "file.damaged", refusal.reason)])
            return {}

    def require_ledger(self, path: Path, *, stopped: bool, known_by: Collection[str] = ()) -> None:
        """A ledger that is not there is a fault when a checkpoint was signed, services have stored events, or anything
        else (`known_by`, in words) has known the tenant.

        While the platform runs, what services have stored just now has no ledger yet: it is pending.
        """
        if checkpoint_file(path).exists():
            self.add([Finding("ledger", "file.damaged", f"{path.name} is gone, and a checkpoint of it is there")])
        elif known_by:
            there = f"the stores of {', '.join(sorted(self.stores))} are" if self.stores else "no store is"
            reason = (
                f"{path.name} is gone, and {there} here: that there is such a tenant, {' and '.join(known_by)} tell"
            )
            self.add([Finding("ledger", "file.damaged", reason)])
        elif stopped and self.pending and self.tenant != PLATFORM_TENANT:  # which has no stream in every deployment
            reason = f"there is no ledger, and services have stored {self.pending} events"
            self.add([Finding("ledger", "file.damaged", reason)])


def report_of(checks: Sequence[TenantCheck], notes: Iterable[str]) -> AuditReport:
    """The answer about all tenants: all is well only where all was looked at."""
    well = not any(check.findings or check.unchecked for check in checks)
    return AuditReport(ok=well, tenants=[check.report() for check in checks], notes=list(notes))


class StreamCheck:
    """Compares a stream, message by message, with the ledger as it was before the stream was read."""

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader
        self._heads = {service: number for service, (number, _) in reader.heads().items()}
        self._seen = {service: bytearray(number + 1) for service, number in self._heads.items()}

    def follow(self, read: Read) -> Iterable[Finding]:
        """What is wrong with one message."""
        if read.envelope is None:
            reason = f"sequence {read.sequence}: {read.fault}"
            yield Finding("stream", "record.altered", reason, read.service, read.notification_id)
            return
        service, number = read.envelope.service, read.envelope.notification_id
        if number > self._heads.get(service, 0):
            return
        self._seen[service][number] = 1
        if self._reader.hash_of(service, number) != read.envelope.hash:
            reason = f"sequence {read.sequence} is not the event that the ledger has under this number"
            yield Finding("stream", "record.forked", reason, service, number)

    def missing(self) -> Iterable[Finding]:
        """Events that the ledger has and no message was."""
        for service, seen in self._seen.items():
            for number in range(1, len(seen)):
                if not seen[number]:
                    yield Finding("stream", "record.missing", "the ledger has it, the stream has not", service, number)
