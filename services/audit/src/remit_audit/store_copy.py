"""A service's event store as a file: read row by row, its chain followed, each event compared with the ledger's.

This reads what `remit_chassis.eventstore.recorders` writes, without its recorder, which believes what it reads.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from remit_audit.findings import Finding
from remit_audit.ledger_file import damage, envelope_of, open_for_reading, reading, schema_faults
from remit_audit.ledger_reader import LedgerReader, most_rows, scan
from remit_audit.verification import MAX_FINDINGS, ServiceChains
from remit_chassis.eventstore.chain import Chain
from remit_chassis.eventstore.recorders import ChainDatastore, SQLiteEventRecorder
from remit_contracts.errors import Refusal, Tampered
from remit_contracts.events import Envelope

TABLE = "stored_events"
_COLUMNS = "originator_id, originator_version, topic, state, tenant, user_id, recorded_at, prev_hash, hash"


class StoreCopy:
    """One chain's file. `last` is the number of its last event, once `compare` has run."""

    def __init__(self, path: Path, service: str, tenant: str) -> None:
        self.path = path
        self.service = service
        self.tenant = tenant
        self.last = 0

    def compare(self, ledger: LedgerReader | None, *, stopped: bool = False) -> Iterator[Finding]:
        """What is wrong with the file, and where it and the ledger differ. Never raises for what the file holds."""
        known = self._known(ledger)
        try:
            db = open_for_reading(self.path, stopped=stopped)
        except Refusal as refusal:
            yield self._damaged(refusal.reason)
            return
        try:
            for reason in damage(db, self.path) + schema_faults(db, expected_schema()):
                yield self._damaged(reason)
            yield from self._compare_events(db, ledger, known)
        except Refusal as refusal:
            yield self._damaged(refusal.reason)
        finally:
            db.close()

    def envelopes(self) -> Iterator[Envelope]:
        """The file's events of a stopped home, as they are; what cannot be read is left out."""
        try:
            db = open_for_reading(self.path, stopped=True)
        except Refusal:
            return
        try:
            last = min(db.execute(f"SELECT max(rowid) FROM {TABLE}").fetchone()[0] or 0, most_rows(self.path))  # noqa: S608 (names from code)
            for number, row in scan(db, self.path, TABLE, "rowid", _COLUMNS, last):
                with suppress(Tampered):
                    yield self._envelope(number, row)
        except (sqlite3.Error, UnicodeDecodeError):
            return
        finally:
            db.close()

    def _compare_events(self, db: sqlite3.Connection, ledger: LedgerReader | None, known: int) -> Iterator[Finding]:
        with reading(self.path):
            last = db.execute(f"SELECT max(rowid) FROM {TABLE}").fetchone()[0] or 0  # noqa: S608 (names from code)
        last = min(max(last, known), most_rows(self.path) + known)
        chains = ServiceChains("store")
        for number, row in scan(db, self.path, TABLE, "rowid", _COLUMNS, last):
            try:
                envelope = self._envelope(number, row)
            except Tampered as fault:
                yield Finding("store", "record.altered", fault.reason, self.service, number)
                continue
            self.last = max(self.last, number)
            yield from self._compare_event(envelope, chains, ledger, known)
        for number in range(self.last + 1, min(known, self.last + MAX_FINDINGS) + 1):
            yield Finding("store", "record.missing", "the ledger has it, the store has not", self.service, number)

    def _compare_event(
        self, envelope: Envelope, chains: ServiceChains, ledger: LedgerReader | None, known: int
    ) -> Iterator[Finding]:
        number = envelope.notification_id
        if not envelope.intact:
            yield Finding("store", "record.altered", "its fields do not give its hash", self.service, number)
            chains.pass_over(envelope)
            return
        yield from chains.follow(envelope)
        theirs = self._hash_in(ledger, number) if number <= known else None
        if theirs not in (None, envelope.hash):
            reason = f"it is not the event that the ledger has, whose hash is {theirs.hex() if theirs else ''}"
            yield Finding("store", "record.forked", reason, self.service, number)

    def _known(self, ledger: LedgerReader | None) -> int:
        """How many of the service's events the ledger has; a damaged one is compared with nothing: it is found
        elsewhere."""
        try:
            return ledger.heads().get(self.service, (0, b""))[0] if ledger else 0
        except Refusal:
            return 0

    def _hash_in(self, ledger: LedgerReader | None, number: int) -> bytes | None:
        try:
            return ledger.hash_of(self.service, number) if ledger else None
        except Refusal:
            return None

    def _envelope(self, number: int, row: tuple[Any, ...] | None) -> Envelope:
        if row is None:
            raise Tampered("the page that holds it is damaged")
        originator, version, topic, state, tenant, user, recorded_at, prev_hash, digest = row
        if tenant != self.tenant:
            raise Tampered(f"it says that it is of tenant {tenant!r:.40}")
        return envelope_of(
            self.tenant,
            (self.service, number, user, originator, version, topic, recorded_at, state, prev_hash, digest),
        )

    def _damaged(self, reason: str) -> Finding:
        return Finding("store", "file.damaged", f"{self.service}/{self.path.name}: {reason}", self.service)


@cache
def expected_schema() -> dict[str, str]:
    """Tables and indexes of a store, as SQLite writes them down when the recorder makes them."""
    recorder = SQLiteEventRecorder(ChainDatastore(Path("unused"), Chain("", ""), read_only=True))
    with sqlite3.connect(":memory:") as db:
        for statement in recorder.construct_create_table_statements():
            db.execute(statement)
        schema = dict(db.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall())
    db.close()
    return schema


def stores_of(stores_dir: Path, tenant: str, services: tuple[str, ...]) -> list[StoreCopy]:
    """The stores of a tenant that are files under `stores_dir` ({service}/{tenant}.sqlite)."""
    paths = ((stores_dir / service / f"{tenant}.sqlite", service) for service in services)
    return [StoreCopy(path, service, tenant) for path, service in paths if path.exists()]
