"""Reading a ledger: pages of a trail, proofs, and every row for verification. Never writes.

Blocking and thread-safe; raises Absent without a file, Tampered for what cannot be read. `snapshot` makes several reads
see one state, as the writer may commit between them.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit_audit.ledger_file import COLUMNS, envelope_of, open_for_reading, reading
from remit_contracts.errors import Refusal, Tampered
from remit_contracts.events import Envelope

CHUNK = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """An event and its place in the ledger."""

    index: int
    envelope: Envelope


class LedgerReader:
    """One read-only connection to a tenant's ledger."""

    def __init__(self, path: Path, tenant: str, *, stopped: bool = False) -> None:
        self.path = path
        self.tenant = tenant
        self.db = open_for_reading(path, stopped=stopped)
        self.db.isolation_level = None
        self._lock = threading.RLock()

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            self.db.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside see the state of the first one; other threads wait."""
        with self._lock, reading(self.path):
            self.db.execute("BEGIN")
            try:
                yield
            finally:
                self.db.execute("COMMIT")

    def note(self) -> str:
        """The latest signed checkpoint; empty before the first entry."""
        row = self._one("SELECT note FROM checkpoint")
        if row and not isinstance(row[0], str):
            raise Tampered("the checkpoint is no text", code="tampered.ledger")
        return row[0] if row else ""

    def size(self) -> int:
        """Entries in the file, signed or not."""
        row = self._one("SELECT max(idx) FROM entries")
        return 0 if row is None or row[0] is None else int(row[0]) + 1

    def heads(self) -> dict[str, tuple[int, bytes]]:
        """Last notification id and hash of each service."""
        with self._lock, reading(self.path):
            services = [str(row[0]) for row in self.db.execute("SELECT DISTINCT service FROM entries")]
        newest = "SELECT notification_id, hash FROM entries WHERE service = ? ORDER BY notification_id DESC LIMIT 1"
        rows = {service: self._one(newest, service) for service in services}
        return {service: (int(row[0]), bytes(row[1])) for service, row in rows.items() if row}

    def entry(self, index: int) -> Entry | None:
        """The entry at an index."""
        row = self._one(f"SELECT {COLUMNS} FROM entries WHERE idx = ?", index)  # noqa: S608 (names from code)
        return Entry(index, envelope_of(self.tenant, row)) if row else None

    def hash_of(self, service: str, notification_id: int) -> bytes | None:
        """The hash that the ledger has for a service's event."""
        row = self._one("SELECT hash FROM entries WHERE service = ? AND notification_id = ?", service, notification_id)
        return bytes(row[0]) if row and isinstance(row[0], bytes) else None

    def of_user(self, user: str, after: int, limit: int) -> list[Entry]:
        """A user's entries with an index over `after`, in order, by the index of users."""
        query = f"SELECT idx, {COLUMNS} FROM entries WHERE user_id = ? AND idx > ? ORDER BY idx LIMIT ?"  # noqa: S608 (names from code)
        with self._lock, reading(self.path):
            rows = self.db.execute(query, (user, after, limit)).fetchall()
        return [Entry(row[0], envelope_of(self.tenant, row[1:])) for row in rows]

    def following(self, after: int, limit: int) -> list[Entry]:
        """Entries of anybody with an index over `after`, in order."""
        query = f"SELECT idx, {COLUMNS} FROM entries WHERE idx > ? ORDER BY idx LIMIT ?"  # noqa: S608 (names from code)
        with self._lock, reading(self.path):
            rows = self.db.execute(query, (after, limit)).fetchall()
        return [Entry(row[0], envelope_of(self.tenant, row[1:])) for row in rows]

    def users_of(self, service: str) -> list[str]:
        """Users that a service has recorded events of."""
        with self._lock, reading(self.path):
            rows = self.db.execute("SELECT DISTINCT user_id FROM entries WHERE service = ?", (service,)).fetchall()
        return sorted(str(row[0]) for row in rows)

    def count_of(self, service: str, topics: Sequence[str]) -> int:
        """How many events of these topics a service has recorded."""
        marks = ", ".join("?" * len(topics))
        query = f"SELECT count(*) FROM entries WHERE service = ? AND topic IN ({marks})"  # noqa: S608 (marks alone)
        return int(self._one(query, service, *topics)[0])

    def node(self, level: int, index: int) -> bytes:
        """A stored subtree's hash."""
        row = self._one("SELECT hash FROM nodes WHERE level = ? AND idx = ?", level, index)
        if row is None or not isinstance(row[0], bytes):
            raise Tampered(f"the ledger of {self.tenant} lacks node ({level}, {index})", code="tampered.ledger")
        return row[0]

    def nodes(self, level: int, first: int, last: int) -> dict[int, Any]:
        """Stored subtrees of a level with `first` <= index < `last`, as they are."""
        query = "SELECT idx, hash FROM nodes WHERE level = ? AND idx >= ? AND idx < ?"
        with self._lock, reading(self.path):
            return dict(self.db.execute(query, (level, first, last)).fetchall())

    def count(self, table: str) -> int:
        """Rows of a table."""
        row = self._one(f"SELECT count(*) FROM {table}")  # noqa: S608 (names from code)
        return int(row[0]) if row else 0

    def held(self) -> int:
        """Events that wait for their predecessors."""
        return self.count("held")

    def _one(self, query: str, *values: Any) -> Any:
        with self._lock, reading(self.path):
            return self.db.execute(query, values).fetchone()


def scan(
    db: sqlite3.Connection, path: Path, table: str, key: str, columns: str, last: int
) -> Iterator[tuple[int, Any]]:
    """Every row of a table up to key `last` as (key, values).

    Where a damaged page stops SQLite, rows are asked for one by one, and values are None for those that stay hidden.
    """
    at = -1
    query = f"SELECT {key}, {columns} FROM {table} WHERE {key} > ? AND {key} <= ? ORDER BY {key}"  # noqa: S608 (names from code)
    while at < last:
        until = min(at + CHUNK, last)
        try:
            with reading(path):
                rows = db.execute(query, (at, until)).fetchall()
            yield from ((row[0], row[1:]) for row in rows)
        except Refusal:
            yield from ((number, _alone(db, table, key, columns, number)) for number in range(at + 1, until + 1))
        at = until


def most_rows(path: Path) -> int:
    """More rows than a file of this size can hold: an edited key must not make a scan endless."""
    return sum(part.stat().st_size for part in (path, path.with_name(path.name + "-wal")) if part.exists()) // 64


def _alone(db: sqlite3.Connection, table: str, key: str, columns: str, number: int) -> tuple[Any, ...] | None:
    try:
        row: tuple[Any, ...] | None = db.execute(f"SELECT {columns} FROM {table} WHERE {key} = ?", (number,)).fetchone()  # noqa: S608 (names from code)
        return row
    except (sqlite3.Error, UnicodeDecodeError):
        return None
