"""The file of one tenant's ledger: its tables, and how its rows are read without believing them.

An attacker may have edited any byte, so a row is data to judge: a value of the wrong type, a text that is no UTF-8 and
a page that SQLite cannot follow all come out as Tampered, and never as a crash.

    entries     one row an event, in ledger order: `idx` counts from 0 and names the leaf
    held        events that arrived before their predecessors and wait for them
    nodes       hashes of complete subtrees by (level, idx), so that a proof is a few look-ups
    checkpoint  one row: the latest signed note
    meta        the tenant, and what is to be remembered of its stream, as signed notes
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

from remit_chassis.sqlitefaults import BUSY_OR_BROKEN_DISK, primary_code
from remit_contracts.errors import Absent, Refusal, Tampered, Unavailable
from remit_contracts.events import Envelope

C = TypeVar("C", bound=sqlite3.Connection)

COLUMNS: Final = (
    "service, notification_id, user_id, originator_id, originator_version, topic, recorded_at, state, prev_hash, hash"
)

_FIELDS: Final = """service TEXT NOT NULL, notification_id INTEGER NOT NULL, user_id TEXT NOT NULL,
    originator_id TEXT NOT NULL,
    originator_version INTEGER NOT NULL, topic TEXT NOT NULL, recorded_at TEXT NOT NULL, state BLOB NOT NULL,
    prev_hash BLOB NOT NULL, hash BLOB NOT NULL"""

TABLES: Final = {
    "entries": f"CREATE TABLE entries (idx INTEGER PRIMARY KEY, {_FIELDS}, UNIQUE (service, notification_id))",
    "entries_of_user": "CREATE INDEX entries_of_user ON entries (user_id, idx)",
    "held": f"CREATE TABLE held ({_FIELDS}, PRIMARY KEY (service, notification_id)) WITHOUT ROWID",
    "nodes": "CREATE TABLE nodes (level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL, "
    "PRIMARY KEY (level, idx)) WITHOUT ROWID",
    "checkpoint": "CREATE TABLE checkpoint (id INTEGER PRIMARY KEY CHECK (id = 1), note TEXT NOT NULL)",
    "meta": "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
}
"""Name -> the statement that made it, which is compared with what the file says."""


def refusal_of(fault: Exception, path: Path) -> Refusal:
    """Unavailable when the machine is to blame for what SQLite says (a full disk, a lock); Tampered: the file."""
    closed = isinstance(fault, sqlite3.ProgrammingError)
    if closed or primary_code(fault) in BUSY_OR_BROKEN_DISK:
        return Unavailable(f"{path.name} cannot be read or written now: {fault}")
    return Tampered(f"{path.name} is damaged: {fault}", code="tampered.file")


def checkpoint_file(path: Path) -> Path:
    """Where the checkpoint beside a ledger lies."""
    return path.with_suffix(".checkpoint")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what SQLite says of a file into a Refusal: see `refusal_of`."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError, OverflowError, TypeError) as fault:
        raise refusal_of(fault, path) from None


class _Copied(sqlite3.Connection):
    """A connection to a copy, which goes with it."""

    scratch: TemporaryDirectory[str] | None = None

    def close(self) -> None:
        """Close, and remove the copy."""
        super().close()
        if self.scratch:
            self.scratch.cleanup()


def open_for_reading(path: Path, *, stopped: bool = False) -> sqlite3.Connection:
    """A read-only connection, also to a file that another process writes; raises Absent when there is no file.

    `stopped` says that no process has the file open: then nothing is written beside it either. A write-ahead log that a
    killed process left behind is read in a copy, as SQLite cannot read one without writing.
    """
    if not path.is_file():
        raise Absent(f"there is no file {path}")
    log = path.with_name(path.name + "-wal")
    with reading(path):
        if not stopped:
            connection: sqlite3.Connection = _connect(path, "mode=ro", sqlite3.Connection)
        elif not log.exists() or not log.stat().st_size:
            connection = _connect(path, "mode=ro&immutable=1", sqlite3.Connection)
        else:
            scratch = TemporaryDirectory(prefix="remit-check-")
            for part in (path, log):
                shutil.copy(part, scratch.name)
            copied = _connect(Path(scratch.name) / path.name, "mode=rw", _Copied)
            copied.scratch = scratch
            connection = copied
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        return connection


def _connect(path: Path, mode: str, kind: type[C]) -> C:
    uri = f"{path.absolute().as_uri()}?{mode}"
    return sqlite3.connect(uri, uri=True, check_same_thread=False, factory=kind)


def damage(connection: sqlite3.Connection, path: Path, limit: int = 10) -> list[str]:
    """What SQLite itself finds wrong with a file's structure and indexes, in its words."""
    try:
        rows = connection.execute(f"PRAGMA integrity_check({limit})").fetchall()
        return [str(row[0]) for row in rows if row[0] != "ok"]
    except (sqlite3.Error, UnicodeDecodeError) as fault:
        return [str(fault)]


def schema_faults(connection: sqlite3.Connection, expected: dict[str, str]) -> list[str]:
    """How a file's tables and indexes differ from those it was made with."""
    try:
        rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as fault:
        return [f"the schema cannot be read: {fault}"]
    found = {str(name): str(sql) for name, sql in rows}
    return [
        f"{name!r:.60} is not what it was made as"
        for name in sorted({*found, *expected})
        if found.get(name) != expected.get(name)
    ]


def envelope_of(tenant: str, row: tuple[Any, ...]) -> Envelope:
    """The envelope in the COLUMNS of a row; raises Tampered when a value has another type."""
    kinds = (str, int, str, str, int, str, str, bytes, bytes, bytes)
    if len(row) != len(kinds) or any(type(value) is not kind for value, kind in zip(row, kinds, strict=True)):
        raise Tampered("a record has values of the wrong type", code="tampered.record")
    service, notification_id, user, originator, version, topic, recorded_at, state, prev_hash, digest = row
    return Envelope(
        service=service,
        tenant=tenant,
        user=user,
        notification_id=notification_id,
        originator_id=originator,
        originator_version=version,
        topic=topic,
        recorded_at=recorded_at,
        state=state,
        prev_hash=prev_hash,
        hash=digest,
    )


def row_of(envelope: Envelope) -> tuple[Any, ...]:
    """The values for COLUMNS."""
    return (
        envelope.service,
        envelope.notification_id,
        envelope.user,
        envelope.originator_id,
        envelope.originator_version,
        envelope.topic,
        envelope.recorded_at,
        envelope.state,
        envelope.prev_hash,
        envelope.hash,
    )
