"""Where a ledger ends, by what was signed: the checkpoint in the file, the one kept beside it, and the tree's stored
edge.

All three must agree before anything more is signed.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from remit_audit import checkpoint as notes
from remit_audit.ledger_file import checkpoint_file
from remit_audit.merkle import CompactRange
from remit_contracts.errors import Tampered, Unavailable


def signed_tree(db: sqlite3.Connection, path: Path, tenant: str, public_key: bytes) -> tuple[CompactRange, str]:
    """The tree's edge as stored, and the note that signs it; raises Tampered when they, or the note beside,
    disagree."""

    def node(level: int, index: int) -> bytes:
        found = db.execute("SELECT hash FROM nodes WHERE level = ? AND idx = ?", (level, index)).fetchone()
        if found is None:
            raise Tampered(f"the ledger of {tenant} lacks node ({level}, {index})", code="tampered.ledger")
        return bytes(found[0])

    row = db.execute("SELECT note FROM checkpoint").fetchone()
    last = db.execute("SELECT max(idx) FROM entries").fetchone()[0]
    size = 0 if last is None else last + 1
    signed = notes.verify(str(row[0]), tenant, public_key) if row else None
    if (signed.size if signed else 0) != size:
        raise Tampered(
            f"the ledger of {tenant} has {size} entries and its checkpoint says otherwise", code="tampered.ledger"
        )
    tree = CompactRange.of(size, node)
    if signed and signed.root != tree.root():
        raise Tampered(f"the ledger of {tenant} contradicts its checkpoint", code="tampered.ledger")
    beside = checkpoint_file(path)
    if beside.exists():
        witnessed = notes.verify(beside.read_text(encoding="utf-8", errors="replace"), tenant, public_key)
        if witnessed.size > size or CompactRange.of(witnessed.size, node).root() != witnessed.root:
            raise Tampered(
                f"the ledger of {tenant} does not begin with the {witnessed.size} entries that were signed",
                code="tampered.ledger",
            )
    return tree, str(row[0]) if row else ""


def keep_checkpoint(path: Path, note: str) -> None:
    """Write the note beside the ledger, synced, in place of the one before; raises Unavailable."""
    beside = checkpoint_file(path)
    fresh = beside.with_suffix(".new")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(beside)
    except OSError as fault:
        raise Unavailable(f"the checkpoint beside {path.name} cannot be kept: {fault}") from None


def remembered_in(name: str, note: str, tenant: str, public_key: bytes) -> str:
    """The value in a row of `meta`; raises Tampered."""
    text = notes.open_note(note, notes.origin_of(tenant), public_key)
    said, _, value = text.removesuffix("\n").partition("\n")
    if said != name:
        raise Tampered(f"what {name!r:.40} should hold was written for {said!r:.40}", code="tampered.ledger")
    return value
