"""One tenant's ledger, as its only writer has it: append, hold what came too early, sign.

Every event is a leaf: its canonical encoding, ciphertext included. A batch of events, the tree nodes that they complete
and the checkpoint over all of them are one transaction, on disk (synchronous=FULL) before anything is acknowledged. The
checkpoint is also kept in a file beside, so that a ledger which was rolled back, page by page or as a whole,
contradicts it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from remit_audit import checkpoint as notes
from remit_audit.findings import Finding
from remit_audit.ledger_end import keep_checkpoint, remembered_in, signed_tree
from remit_audit.ledger_file import COLUMNS, TABLES, envelope_of, reading, refusal_of, row_of
from remit_audit.merkle import CompactRange, leaf_hash
from remit_contracts.errors import Tampered
from remit_contracts.events import GENESIS, Envelope

_INSERT = f"INTO {{}} ({{}}{COLUMNS}) VALUES ({{}}?,?,?,?,?,?,?,?,?,?)"
INSERT_ENTRY = "INSERT " + _INSERT.format("entries", "idx, ", "?,")
TAKE_HELD = f"DELETE FROM held WHERE service = ? AND notification_id = ? RETURNING {COLUMNS}"  # noqa: S608
INSERT_HELD = "INSERT OR IGNORE " + _INSERT.format("held", "", "")


@dataclass
class Receipt:
    """What became of a batch: entries appended, duplicates known already, events held, and what was wrong."""

    size: int
    appended: int = 0
    duplicates: int = 0
    held: int = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass
class _Growth:
    """The ledger's end while a transaction is open; becomes the truth when it commits."""

    tree: CompactRange
    heads: dict[str, tuple[int, bytes]]
    nodes: list[tuple[int, int, bytes]] = field(default_factory=list)
    holding: bool = False
    """Whether anything came too early: looking for it at every event would cost as much as appending."""


class Ledger:
    """The writer of one ledger file. Thread-safe; blocking, so call it from a thread.

    Raises Tampered when what is stored contradicts the last checkpoint, and then signs nothing more; Unavailable when
    the disk takes no write.
    """

    def __init__(self, path: Path, tenant: str, key: Ed25519PrivateKey) -> None:
        self.path = path
        self.tenant = tenant
        self.public_key = key.public_key().public_bytes_raw()
        self._key = key
        self._lock = threading.Lock()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with reading(path):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA busy_timeout = 5000")
            self._create()
            self._tree, self._note = signed_tree(self._db, path, tenant, self.public_key)
            self._heads = self._stored_heads()

    # -- reading its own end ---------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Entries so far."""
        return self._tree.size

    @property
    def note(self) -> str:
        """The latest signed checkpoint; empty before the first entry."""
        return self._note

    def head(self, service: str) -> tuple[int, bytes]:
        """Last notification id and hash that the ledger has of a service: (0, GENESIS) before the first."""
        return self._heads.get(service, (0, GENESIS))

    def services(self) -> list[str]:
        """Services that the ledger has events of."""
        return sorted(self._heads)

    def hash_at(self, service: str, notification_id: int) -> bytes | None:
        """The hash that the ledger has for a service's event, appended or held."""
        with self._lock, reading(self.path):
            return self._known(service, notification_id)

    def gaps(self) -> list[tuple[str, int, int]]:
        """Ranges (service, first, last) that are missing before events that are held."""
        with self._lock, reading(self.path):
            rows = self._db.execute(
                "SELECT service, notification_id FROM held ORDER BY service, notification_id"
            ).fetchall()
        gaps, last = [], dict(self._heads)
        for service, notification_id in rows:
            known = last.get(service, (0, GENESIS))[0]
            if notification_id > known + 1:
                gaps.append((service, known + 1, notification_id - 1))
            last[service] = (notification_id, GENESIS)
        return gaps

    def remembered(self, name: str) -> str:
        """A value kept with the ledger, empty when there is none; raises Tampered when somebody else wrote it."""
        with self._lock, reading(self.path):
            row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        if row is None:
            return ""
        return remembered_in(name, str(row[0]), self.tenant, self.public_key)

    def remember(self, name: str, value: str) -> None:
        """Keep one line with the ledger, signed, since what decides about alarms must not be editable."""
        note = notes.sign_note(f"{name}\n{value}\n", notes.origin_of(self.tenant), self._key)
        with self._lock, reading(self.path):
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, note))

    # -- growing ---------------------------------------------------------------------------------------------------

    def receive(self, envelopes: Iterable[Envelope]) -> Receipt:
        """Take intact envelopes in the order of arrival: append each service's next ones, hold what came too early.

        An id that is known already with the same hash is a duplicate and nothing; with another hash it is a fork, found
        and not appended. An event that does not continue its service's chain is appended all the same, as the ledger is
        the witness of what was said, and found.
        """
        with self._lock:
            growth = _Growth(self._tree.copy(), dict(self._heads))
            receipt = Receipt(growth.tree.size)
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._require_own_end()
                growth.holding = self._db.execute("SELECT 1 FROM held LIMIT 1").fetchone() is not None
                for envelope in envelopes:
                    self._take(envelope, growth, receipt)
                note = self._seal(growth) if receipt.appended else self._note
                self._db.execute("COMMIT")
            except sqlite3.Error as fault:
                self._roll_back()
                raise refusal_of(fault, self.path) from None
            except BaseException:
                self._roll_back()
                raise
            self._tree, self._heads, self._note = growth.tree, growth.heads, note
            receipt.size = growth.tree.size
            if receipt.appended:
                keep_checkpoint(self.path, self._note)
            return receipt

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        with self._lock:
            self._db.close()

    def _take(self, envelope: Envelope, growth: _Growth, receipt: Receipt) -> None:
        encoded = envelope.encoded()
        if envelope.tenant != self.tenant or sha256(encoded).digest() != envelope.hash:
            raise Tampered(f"an event of {envelope.tenant} that is no intact event of {self.tenant} came to its ledger")
        service, number = envelope.service, envelope.notification_id
        last, _ = growth.heads.get(service, (0, GENESIS))
        known = None if number == last + 1 else self._known(service, number)
        if known not in (None, envelope.hash):
            receipt.findings.append(
                Finding(
                    "stream",
                    "record.forked",
                    f"two events claim this number: {(known or b'').hex()} was first, then came {envelope.hash.hex()}",
                    service,
                    number,
                )
            )
        elif known is not None:
            receipt.duplicates += 1
        elif number > last + 1:
            self._db.execute(INSERT_HELD, row_of(envelope))
            growth.holding = True
            receipt.held += 1
        else:
            self._append(envelope, encoded, growth, receipt)
            if growth.holding:
                self._append_held(service, growth, receipt)

    def _append(self, envelope: Envelope, encoded: bytes, growth: _Growth, receipt: Receipt) -> None:
        index = growth.tree.size
        _, before = growth.heads.get(envelope.service, (0, GENESIS))
        if envelope.prev_hash != before:
            receipt.findings.append(
                Finding(
                    "stream",
                    "chain.broken",
                    f"it names {envelope.prev_hash.hex()} as the event before it, which is {before.hex()}",
                    envelope.service,
                    envelope.notification_id,
                    index,
                )
            )
        self._db.execute(INSERT_ENTRY, (index, *row_of(envelope)))
        growth.nodes += growth.tree.append(leaf_hash(encoded))
        growth.heads[envelope.service] = (envelope.notification_id, envelope.hash)
        receipt.appended += 1

    def _append_held(self, service: str, growth: _Growth, receipt: Receipt) -> None:
        """Whatever waited for the event that was just appended."""
        while True:
            following = growth.heads[service][0] + 1
            row = self._db.execute(TAKE_HELD, (service, following)).fetchone()
            if row is None:
                return
            envelope = envelope_of(self.tenant, row)
            self._append(envelope, envelope.encoded(), growth, receipt)

    def _known(self, service: str, number: int) -> bytes | None:
        row = self._db.execute(
            "SELECT hash FROM entries WHERE service = ? AND notification_id = ?", (service, number)
        ).fetchone()
        row = (
            row
            or self._db.execute(
                "SELECT hash FROM held WHERE service = ? AND notification_id = ?", (service, number)
            ).fetchone()
        )
        return bytes(row[0]) if row else None

    # -- signing ---------------------------------------------------------------------------------------------------

    def _seal(self, growth: _Growth) -> str:
        self._db.executemany("INSERT INTO nodes VALUES (?, ?, ?)", growth.nodes)
        note = notes.sign(
            notes.Checkpoint(notes.origin_of(self.tenant), growth.tree.size, growth.tree.root()), self._key
        )
        self._db.execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?)", (note,))
        return note

    def _require_own_end(self) -> None:
        """Nothing is signed on top of a file that somebody else changed meanwhile."""
        row = self._db.execute("SELECT note FROM checkpoint").fetchone()
        last = self._db.execute("SELECT max(idx) FROM entries").fetchone()[0]
        if (row[0] if row else "") != self._note or (-1 if last is None else last) + 1 != self._tree.size:
            raise Tampered(f"the ledger of {self.tenant} was changed by somebody else", code="tampered.ledger")

    # -- the file --------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        if self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
            for statement in TABLES.values():
                self._db.execute(statement)
            self._db.execute("INSERT INTO meta VALUES ('tenant', ?)", (self.tenant,))
        self._db.execute("COMMIT")
        if self._db.execute("SELECT value FROM meta WHERE name = 'tenant'").fetchone() != (self.tenant,):
            raise Tampered(f"{self.path} is the ledger of another tenant", code="tampered.ledger")

    def _stored_heads(self) -> dict[str, tuple[int, bytes]]:
        services = [row[0] for row in self._db.execute("SELECT DISTINCT service FROM entries")]
        newest = "SELECT notification_id, hash FROM entries WHERE service = ? ORDER BY notification_id DESC LIMIT 1"
        return {service: self._db.execute(newest, (service,)).fetchone() for service in services}

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
