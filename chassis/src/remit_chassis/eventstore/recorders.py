"""The library's SQLite recorder, extended with tenant, user, instant and hashes; one file per service and tenant.

`rowid` is the notification id, declared so that VACUUM cannot renumber it. Everything is durable on return: WAL with
synchronous=FULL, one fsync a transaction.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from eventsourcing.persistence import IntegrityError, InterfaceError, OperationalError, PersistenceError, StoredEvent
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
)

from remit_chassis.eventstore.chain import Chain, Head, Outcome, Save, instant, link, row_of
from remit_chassis.sqlitefaults import primary_code
from remit_contracts.events import Envelope
from remit_contracts.identity import SYSTEM_USER

_COLUMNS = "rowid, originator_id, originator_version, topic, state, tenant, user_id, recorded_at, prev_hash, hash"
_ROW = "(?,?,?,?,?,?,?,?,?,?)"
_MOST_ROWS = 3000  # in one INSERT: SQLite takes 32,766 parameters

BUSY_SECONDS = 5


class DurablePool(SQLiteConnectionPool):
    """Connections that sync at every commit and keep the statements of group commit compiled."""

    def connect(self) -> sqlite3.Connection:
        """A connection that is not the pool's; raises InterfaceError."""
        try:
            connection = sqlite3.connect(
                self.db_name,
                uri=True,
                check_same_thread=False,
                isolation_level=None,
                cached_statements=256,
                timeout=BUSY_SECONDS,
            )
        except sqlite3.Error as fault:
            raise InterfaceError(f"{type(fault).__name__}: {fault}") from fault
        try:
            if "mode=ro" not in self.db_name:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error as fault:
            connection.close()
            raise InterfaceError(f"{type(fault).__name__}: {fault}") from fault
        connection.row_factory = sqlite3.Row
        return connection

    def _create_connection(self) -> SQLiteConnection:
        return SQLiteConnection(self.connect(), max_age=self.max_age)


class ChainDatastore(SQLiteDatastore):
    """The file of one chain, created with mode 0600 when it is not there."""

    def __init__(self, path: Path, chain: Chain, *, read_only: bool = False) -> None:
        super().__init__(f"{path.absolute().as_uri()}{'?mode=ro' if read_only else ''}")
        self.pool: DurablePool = DurablePool(db_name=self.pool.db_name)
        self.chain = chain
        if not read_only:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)


class SQLiteEventRecorder(SQLiteApplicationRecorder):
    """The library's application recorder over a ChainDatastore, and the Recorder of our store."""

    datastore: ChainDatastore

    def __init__(self, datastore: ChainDatastore, events_table_name: str = "stored_events") -> None:
        super().__init__(datastore, events_table_name)
        self._known_head: Head | None = None
        self._writing: sqlite3.Connection | None = None
        self._select = f"SELECT {_COLUMNS} FROM {events_table_name} "  # noqa: S608 (a name from code)

    def construct_create_table_statements(self) -> list[str]:
        """Columns of the library under the library's names, then ours."""
        table = self.events_table_name
        return [
            f"CREATE TABLE IF NOT EXISTS {table} ("
            "rowid INTEGER PRIMARY KEY, originator_id TEXT NOT NULL, originator_version INTEGER NOT NULL, "
            "topic TEXT NOT NULL, state BLOB NOT NULL, tenant TEXT NOT NULL, user_id TEXT NOT NULL, "
            "recorded_at TEXT NOT NULL, prev_hash BLOB NOT NULL, hash BLOB NOT NULL, "
            "UNIQUE (originator_id, originator_version))",
            f"CREATE INDEX IF NOT EXISTS {table}_by_user ON {table} (user_id, rowid)",
            "CREATE TABLE IF NOT EXISTS write_probe (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL)",
        ]

    def _insert_events(self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        # The library's own way in: one save a transaction. The store uses insert_saves.
        save = Save(kwargs.get("user", SYSTEM_USER), stored_events)
        self._known_head = None
        c.execute(f"{self._select} ORDER BY rowid DESC LIMIT 1")
        ((envelopes,), _) = link(self.datastore.chain, self._head_of(c.fetchone()), [save], instant(datetime.now(UTC)))
        c.executemany(f"INSERT INTO {self.events_table_name} ({_COLUMNS}) VALUES {_ROW}", [*map(row_of, envelopes)])  # noqa: S608
        return [envelope.notification_id for envelope in envelopes]

    def insert_saves(self, saves: Sequence[Save], recorded_at: str) -> Sequence[Outcome]:
        """One INSERT for all when nothing is in the way: it is its own transaction, and the GIL is let go once.

        Called by one thread. It keeps its connection: the pool's way in and out is no small part of a small save.
        """
        if self._writing is None:
            self._writing = self.datastore.pool.connect()
        c = self._writing.cursor()
        try:
            head = self._known_head or self._read_head(c)
            self._known_head = None  # unknown again until the commit has succeeded
            linked, head = link(self.datastore.chain, head, saves, recorded_at)
            rows = [value for envelopes in linked for envelope in envelopes for value in row_of(envelope)]
            count = len(rows) // 10
            if count and count <= _MOST_ROWS:
                try:
                    c.execute(_insert(self.events_table_name, count), rows)
                except sqlite3.IntegrityError:
                    pass
                else:
                    self._known_head = head
                    return linked
            return self._insert_each(c, saves, recorded_at)
        except sqlite3.Error as fault:
            self._stop_writing()  # the next save begins with the file as it is then
            raise OperationalError(f"{type(fault).__name__}: {fault}") from fault

    def _insert_each(self, c: sqlite3.Cursor, saves: Sequence[Save], recorded_at: str) -> list[Outcome]:
        """A savepoint for each: a save that is refused takes no number, and the next one links to what is there."""
        outcomes: list[Outcome] = []
        broken: set[int] = set()
        c.execute("BEGIN IMMEDIATE")
        try:
            head = self._read_head(c)
            for save in saves:
                if save.line in broken:
                    outcomes.append(IntegrityError("follows a save that was refused"))
                    continue
                (envelopes,), next_head = link(self.datastore.chain, head, [save], recorded_at)
                c.execute("SAVEPOINT one_save")
                try:
                    c.executemany(_insert(self.events_table_name, 1), [*map(row_of, envelopes)])
                except sqlite3.IntegrityError as conflict:
                    c.execute("ROLLBACK TO one_save")
                    outcomes.append(IntegrityError(str(conflict)))
                    if save.line:
                        broken.add(save.line)
                else:
                    head = next_head
                    outcomes.append(envelopes)
                c.execute("RELEASE one_save")
            c.execute("COMMIT")
        except BaseException:
            if c.connection.in_transaction:
                c.execute("ROLLBACK")
            raise
        self._known_head = head
        return outcomes

    def select_envelopes(self, first: int, limit: int) -> Sequence[Envelope]:
        """Up to `limit` events from number `first` on."""
        return self._envelopes("WHERE rowid >= ? ORDER BY rowid LIMIT ?", first, limit)

    def select_envelopes_of_user(self, user: str, after: int, limit: int) -> Sequence[Envelope]:
        """One user's events numbered above `after`."""
        return self._envelopes("WHERE user_id = ? AND rowid > ? ORDER BY rowid LIMIT ?", user, after, limit)

    def select_envelopes_of_aggregate(self, originator_id: UUID) -> Sequence[Envelope]:
        """All events of an aggregate by version."""
        return self._envelopes("WHERE originator_id = ? ORDER BY originator_version", originator_id.hex)

    def head(self) -> Head:
        """The last event as the file has it."""
        envelopes = self._envelopes("ORDER BY rowid DESC LIMIT 1")
        return Head(envelopes[0].notification_id, envelopes[0].hash) if envelopes else Head()

    def probe(self) -> None:
        """Write and sync a counter."""
        with self.datastore.transaction(commit=True) as c:
            c.execute("INSERT INTO write_probe VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET count = count + 1")

    def close(self) -> None:
        """Let go of every connection."""
        self._stop_writing()
        self.datastore.close()

    def _stop_writing(self) -> None:
        if self._writing is not None:
            self._writing.close()
            self._writing = None

    def _envelopes(self, tail: str, *values: Any) -> list[Envelope]:
        service = self.datastore.chain.service
        with self.datastore.transaction(commit=False) as c:
            c.execute(self._select + tail, values)
            return [
                Envelope(
                    service=service,
                    tenant=row["tenant"],
                    user=row["user_id"],
                    notification_id=row["rowid"],
                    originator_id=row["originator_id"],
                    originator_version=row["originator_version"],
                    topic=row["topic"],
                    recorded_at=row["recorded_at"],
                    state=row["state"],
                    prev_hash=row["prev_hash"],
                    hash=row["hash"],
                )
                for row in c.fetchall()
            ]

    def _read_head(self, c: sqlite3.Cursor) -> Head:
        return self._head_of(c.execute(f"{self._select} ORDER BY rowid DESC LIMIT 1").fetchone())

    @staticmethod
    def _head_of(row: Any) -> Head:
        return Head(row["rowid"], row["hash"]) if row else Head()


def open_sqlite(path: Path, chain: Chain, *, read_only: bool = False) -> SQLiteEventRecorder:
    """The recorder of one chain's file. `read_only` neither creates nor changes anything: for a stopped home."""
    if not read_only and not path.exists():
        _create(path, chain)
    return SQLiteEventRecorder(ChainDatastore(path, chain, read_only=read_only))


def _create(path: Path, chain: Chain) -> None:
    """The file appears with its tables or not at all: whoever checks stores would take an empty one for damaged.

    A rename overwrites, and a hard link, which does not, is not to be had on every file system: so whoever makes a
    file of this directory holds its lock, and looks again whether somebody else was quicker.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if path.exists():
            return
        new = path.with_name(f"{path.name}.new")  # one that an earlier process left is made good
        recorder = SQLiteEventRecorder(ChainDatastore(new, chain))
        recorder.create_table()
        recorder.close()
        new.rename(path)
        os.fsync(directory)
    finally:
        os.close(directory)  # and so the lock is let go


def is_damaged(fault: PersistenceError) -> bool:
    """Whether it says that the file holds no such database, so that no later attempt will fare better."""
    cause = fault.__cause__
    if not isinstance(cause, sqlite3.Error):
        return False
    return primary_code(cause) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "no such table" in str(cause)


@lru_cache(maxsize=512)
def _insert(table: str, rows: int) -> str:
    return f"INSERT INTO {table} ({_COLUMNS}) VALUES {','.join([_ROW] * rows)}"  # noqa: S608 (a name from code)
