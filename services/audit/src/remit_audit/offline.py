"""Trails and checks on the files of a stopped home: `trail-show`, `trail-verify`, `audit-check`.

Each takes the home directory and returns a plain dict in the shape of `remit_contracts.trails`. Nothing is written, no
service and no bus is needed. Whatever the files hold, damage is reported and never a crash.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from remit_audit.application import fitting, shown
from remit_audit.check import RUNTIME, TenantCheck, report_of
from remit_audit.findings import Finding
from remit_audit.known_tenants import known_tenants
from remit_audit.ledger_file import damage
from remit_audit.ledger_reader import CHUNK, LedgerReader
from remit_audit.states import open_state
from remit_audit.stopped_vault import StoppedVault
from remit_audit.store_copy import stores_of
from remit_audit.verification import Verdict, verify_user
from remit_chassis.permits import PermitVerifier
from remit_chassis.settings import read_hex_secret
from remit_contracts.directory import USER_ID_PREFIX
from remit_contracts.errors import Absent, MalformedIdentifier, Refusal, Tampered
from remit_contracts.events import Envelope
from remit_contracts.identity import PLATFORM_TENANT, SYSTEM_USER, is_label, label
from remit_contracts.trails import TrailPage, TrailVerified

NOTES: Final = (
    "The messages of the bus (nats/) were not read: the stream's copy is compared while the platform runs.",
    "A ledger that was rolled back together with its checkpoint file shows only against a copy kept elsewhere.",
)
_REGISTERED = "auth.User.Registered"


class StoppedHome:
    """What these commands read of a home; raises Absent when it is none, Tampered without its public keys."""

    def __init__(self, home: Path) -> None:
        self.stores = home / "store"
        self.ledgers = home / "ledger"
        if not (home / "home.json").exists():  # whatever else is gone is missed, and never makes it less of a home
            raise Absent(f"{home} is no Remit home: it has no home.json")
        try:
            self.ledger_key = read_hex_secret(home / "public" / "ledger.pub")
            self.permits = PermitVerifier(read_hex_secret(home / "public" / "permit.pub"))
        except ValueError as fault:
            raise Tampered(str(fault)) from None
        self.vault = StoppedVault(home)
        self.known = known_tenants(home, self.vault)

    def tenants(self) -> list[str]:
        """Tenants that have a ledger or a store, or are known otherwise."""
        found = {path.stem for path in [*self.ledgers.glob("*.sqlite"), *self.stores.glob("*/*.sqlite")]}
        found |= {path.stem for path in self.ledgers.glob("*.checkpoint")}
        if self.lacks_ledgers:
            found.add(PLATFORM_TENANT)  # somebody must be there to miss them
        return sorted(filter(is_label, found | self.known.keys()))

    @property
    def lacks_ledgers(self) -> bool:
        """The directory that the making of a home puts there is gone: `no_ledgers` says so."""
        return not self.ledgers.is_dir()

    @property
    def no_ledgers(self) -> str:
        """In words, with the way out."""
        return f"the directory {self.ledgers} is gone: restore it from a backup"

    def ledger(self, tenant: str) -> LedgerReader:
        """A tenant's ledger; raises Absent or Tampered."""
        return LedgerReader(self.ledgers / f"{tenant}.sqlite", tenant, stopped=True)


def trail_show(home: Path, who: str, *, after: int | None = None, limit: int = 100) -> dict[str, Any]:
    """A page of the trail of `who` (TENANT/HANDLE or TENANT/USER_ID) as a TrailPage.

    Raises Absent, Tampered and Unavailable.
    """
    files = StoppedHome(home)
    try:
        tenant, reader, user = _trail_of(files, who)
        found = reader.of_user(user, -1 if after is None else after, limit + 1)
        page = fitting(found[:limit])
        key = files.vault.key(tenant, user) if page else None
        answer = TrailPage(
            entries=[shown(entry, key) for entry in page],
            next=page[-1].index if len(page) < len(found) else None,
            checkpoint=reader.note(),
        )
        reader.close()
    finally:
        files.vault.close()
    return answer.model_dump(mode="json")


def trail_verify(home: Path, who: str) -> dict[str, Any]:
    """Recompute the trail of `who`, as a TrailVerified, in which a ledger that cannot be read is a fault.

    Raises Absent and Unavailable.
    """
    files = StoppedHome(home)
    try:
        _, reader, user = _trail_of(files, who)
        verdict = verify_user(reader, user, files.ledger_key)
        for reason in damage(reader.db, reader.path):
            verdict.add(Finding("ledger", "file.damaged", f"{reader.path.name}: {reason}"))
        reader.close()
    except Tampered as fault:
        verdict = Verdict(findings=[Finding("ledger", "file.damaged", fault.reason)])
    finally:
        files.vault.close()
    answer = TrailVerified(
        ok=verdict.ok,
        entries=verdict.entries,
        checkpoint=verdict.note,
        faults=[finding.fault() for finding in verdict.findings],
    )
    return answer.model_dump(mode="json")


def audit_check(home: Path) -> dict[str, Any]:
    """Compare stores, ledgers and permits of every tenant, as an AuditReport; raises Absent when `home` is none."""
    files = StoppedHome(home)
    try:
        checks = [_check(files, tenant) for tenant in files.tenants()]
    finally:
        files.vault.close()
    return report_of(checks, NOTES).model_dump(mode="json")


def _check(files: StoppedHome, tenant: str) -> TenantCheck:
    check = TenantCheck(tenant)
    if files.lacks_ledgers:
        check.add([Finding("ledger", "file.damaged", files.no_ledgers)])
    _check_copies(files, check)
    _check_vault(files.vault, check)
    return check


def _check_copies(files: StoppedHome, check: TenantCheck) -> None:
    tenant = check.tenant
    try:
        reader = files.ledger(tenant)
    except Absent:
        check.check_stores(files.stores, None, stopped=True)
        check.require_ledger(files.ledgers / f"{tenant}.sqlite", stopped=True, known_by=files.known.get(tenant, ()))
        return
    except Refusal as refusal:
        check.add([Finding("ledger", "file.damaged", refusal.reason)])
        check.check_stores(files.stores, None, stopped=True)
        return
    try:
        check.check_ledger(reader, files.ledger_key)
        check.check_stores(files.stores, reader, stopped=True)
        check.count_effects(reader)
        if not files.vault.fault:
            check.check_effects(reader, files.permits, _keys(files, check, reader))
    finally:
        reader.close()


def _check_vault(vault: StoppedVault, check: TenantCheck) -> None:
    """What a tenant has on record can be decrypted only with its keys: the vault must be there and have them.

    A vault that is gone, or lacks a tenant's keys, is a fault; what merely cannot be opened here is left unchecked.
    """
    if not (events := check.entries + check.pending):
        return
    what = f"{events} events cannot be decrypted, and {check.effects} effects were not compared with their permits"
    if vault.gone:
        check.add([Finding("vault", "file.damaged", f"{vault.fault}: {what}")])
        return
    try:
        if check.tenant not in vault.tenants():
            reason = f"the vault has no key of {check.tenant}: {events} events cannot be decrypted"
            check.add([Finding("vault", "key.missing", reason)])
    except Tampered as fault:
        check.add([Finding("vault", "file.damaged", fault.reason)])
    if vault.fault:
        check.unchecked.append(f"{what}: {vault.fault}")


def _keys(files: StoppedHome, check: TenantCheck, reader: LedgerReader) -> dict[str, bytes | None]:
    """The keys of everybody whose runs are to be checked; what the vault cannot give is a fault."""
    keys = {}
    try:
        users = reader.users_of(RUNTIME)
    except Refusal as refusal:
        check.add([Finding("ledger", "file.damaged", refusal.reason)])
        return {}
    for user in users:
        try:
            keys[user] = files.vault.key(check.tenant, user)
        except Refusal as refusal:
            check.add([Finding("vault", "key.unreadable", f"the key of {check.tenant}/{user}: {refusal.reason}")])
    return keys


def _trail_of(files: StoppedHome, who: str) -> tuple[str, LedgerReader, str]:
    tenant, slash, name = who.partition("/")
    if not slash:
        raise MalformedIdentifier(kind="user (TENANT/HANDLE or TENANT/USER_ID)", value=who)
    reader = _ledger_of(files, label(tenant, kind="tenant"))
    label(name, kind="handle or user id")
    if name.startswith(USER_ID_PREFIX) or name == SYSTEM_USER:
        return tenant, reader, name
    unreadable = 0
    for envelope in _registrations(files, reader):
        try:
            if _handle_in(files, envelope) == name:
                return tenant, reader, envelope.user
        except Tampered:
            unreadable += 1
    if unreadable:
        raise Tampered(f"{unreadable} registrations of {tenant} do not open, so {name} was not found: name the user id")
    raise Absent(f"{tenant} has nobody with the handle {name}")


def _ledger_of(files: StoppedHome, tenant: str) -> LedgerReader:
    """Raises Absent for a tenant that nothing here tells of; a ledger that others tell of is missed: Tampered."""
    try:
        return files.ledger(tenant)
    except Absent:
        if files.lacks_ledgers:
            raise Tampered(files.no_ledgers) from None
        if tenant in files.tenants():
            gone = files.ledgers / f"{tenant}.sqlite"
            raise Tampered(f"the ledger {gone} is gone: restore it from a backup") from None
        raise


def _registrations(files: StoppedHome, reader: LedgerReader) -> Iterator[Envelope]:
    """As the ledger has them, then as the store of auth has them: one of the two may be altered."""
    after = -1
    while page := reader.following(after, CHUNK):
        yield from (entry.envelope for entry in page if entry.envelope.topic == _REGISTERED)
        after = page[-1].index
    for copy in stores_of(files.stores, reader.tenant, ("auth",)):
        yield from (envelope for envelope in copy.envelopes() if envelope.topic == _REGISTERED)


def _handle_in(files: StoppedHome, envelope: Envelope) -> str | None:
    try:
        key = files.vault.key(envelope.tenant, envelope.user)
    except Absent:
        return None
    return None if key is None else open_state(envelope, key).get("handle")
