"""Recomputing a ledger, whole or one user's part of it, against the checkpoint that its key signed.

Nothing stored is believed: hashes come from the fields, leaves from the hashes' own bytes, the root from the leaves,
and the signature is the only thing that needs a secret. Every record that is wrong is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from remit_audit import checkpoint as notes
from remit_audit.findings import Finding
from remit_audit.ledger_end import remembered_in
from remit_audit.ledger_file import COLUMNS, TABLES, checkpoint_file, damage, envelope_of, schema_faults
from remit_audit.ledger_reader import CHUNK, Entry, LedgerReader, most_rows, scan
from remit_audit.merkle import BadProof, CompactRange, Node, inclusion_proof, leaf_hash, verify_inclusion
from remit_contracts.errors import Refusal, Tampered
from remit_contracts.events import GENESIS, Envelope

MAX_FINDINGS = 1000
"""A ledger replaced as a whole has a fault a row; the first thousand say enough."""


@dataclass
class Verdict:
    """What a verification saw: entries recomputed, the note that they lie under, and what is wrong."""

    entries: int = 0
    note: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.findings

    def add(self, found: Finding) -> None:
        """Keep a finding, up to MAX_FINDINGS."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(found)


class ServiceChains:
    """Follows each service's events: numbered from 1 without a gap, each naming the hash of the one before."""

    def __init__(self, copy_name: str) -> None:
        self._copy = copy_name
        self.heads: dict[str, tuple[int, bytes]] = {}

    def follow(self, envelope: Envelope, index: int | None = None) -> Iterator[Finding]:
        """What is wrong with the event as its service's next one."""
        number, before = self.heads.get(envelope.service, (0, GENESIS))
        service = envelope.service
        if envelope.notification_id <= number:
            yield Finding(
                self._copy, "record.duplicated", f"it comes after {number}", service, envelope.notification_id, index
            )
            return
        for missing in range(number + 1, min(envelope.notification_id, number + 1 + MAX_FINDINGS)):
            yield Finding(
                self._copy,
                "record.missing",
                f"{service} has {envelope.notification_id} after {number}",
                service,
                missing,
            )
        if envelope.notification_id == number + 1 and before and envelope.prev_hash != before:
            reason = "it does not name the hash of the event before it"
            yield Finding(self._copy, "chain.broken", reason, service, envelope.notification_id, index)
        self.heads[service] = (envelope.notification_id, envelope.hash)

    def pass_over(self, envelope: Envelope) -> None:
        """Go on behind an altered event: it was found, so neither its number nor its hash is missed a second time."""
        number, _ = self.heads.get(envelope.service, (0, GENESIS))
        if envelope.notification_id == number + 1:
            self.heads[envelope.service] = (envelope.notification_id, b"")


def verify_ledger(reader: LedgerReader, public_key: bytes) -> Verdict:
    """Recompute everything in a ledger file. Never raises for what the file holds."""
    verdict = Verdict()
    for reason in damage(reader.db, reader.path) + schema_faults(reader.db, TABLES):
        verdict.add(Finding("ledger", "file.damaged", f"{reader.path.name}: {reason}"))
    try:
        with reader.snapshot():
            _verify_entries(reader, public_key, verdict)
    except Refusal as refusal:
        verdict.add(Finding("ledger", "file.damaged", refusal.reason))
    return verdict


def _verify_entries(reader: LedgerReader, public_key: bytes, verdict: Verdict) -> None:
    signed = _signed(reader, public_key, verdict)
    size = signed.size if signed else min(reader.size(), most_rows(reader.path))
    tree, chains = CompactRange(), ServiceChains("ledger")
    roots = {point.size: point for point in (signed, _beside(reader.path, reader.tenant, public_key, verdict)) if point}
    pending: dict[tuple[int, int], bytes] = {}
    broken = False
    for index, row in scan(reader.db, reader.path, "entries", "idx", COLUMNS, size - 1):
        if index != tree.size:
            verdict.add(
                Finding(
                    "ledger", "record.missing", f"entries {tree.size} to {index - 1} are not there", index=tree.size
                )
            )
            broken = True
            break
        leaf = _leaf(reader, index, row, chains, verdict)
        for level, place, computed in tree.append(leaf):
            pending[level, place] = computed
        if len(pending) >= CHUNK:
            _compare_nodes(reader, pending, verdict)
        point = roots.pop(tree.size, None)
        if point and point.root != tree.root():
            reason = f"the first {point.size} entries do not give the root that was signed"
            verdict.add(Finding("ledger", "checkpoint.contradicted", reason))
    _compare_nodes(reader, pending, verdict)
    verdict.entries = tree.size
    if not broken:
        _verify_end(reader, size, tree.size, roots, verdict)
    _verify_rest(reader, public_key, verdict)


def _verify_end(
    reader: LedgerReader, size: int, found: int, roots: dict[int, notes.Checkpoint], verdict: Verdict
) -> None:
    """The file ends where what was signed ends."""
    for point in roots.values():
        if point.size:
            reason = f"{point.size} entries were signed and {found} are there"
            verdict.add(Finding("ledger", "checkpoint.contradicted", reason))
    if reader.size() != size:
        verdict.add(
            Finding("ledger", "checkpoint.contradicted", f"entries reach {reader.size()} and {size} were signed")
        )
    expected = sum(size >> level for level in range(size.bit_length()))
    if found == size and reader.count("nodes") != expected:
        verdict.add(
            Finding("ledger", "tree.altered", f"{reader.count('nodes')} nodes are stored where {expected} belong")
        )


def _verify_rest(reader: LedgerReader, public_key: bytes, verdict: Verdict) -> None:
    """The small tables: whose ledger it is, what is remembered, what waits."""
    meta = dict(reader.db.execute("SELECT name, value FROM meta").fetchall())
    if meta.pop("tenant", None) != reader.tenant:
        verdict.add(Finding("ledger", "file.damaged", "the ledger says that it is another tenant's"))
    for name, note in meta.items():
        try:
            remembered_in(str(name), str(note), reader.tenant, public_key)
        except Tampered as fault:
            verdict.add(Finding("ledger", "file.damaged", f"what is remembered as {name!r:.40}: {fault.reason}"))
    for row in reader.db.execute(f"SELECT {COLUMNS} FROM held"):  # noqa: S608 (names from code)
        try:
            waiting = envelope_of(reader.tenant, row)
            if not waiting.intact:
                reason = "it waits for its predecessors, and its fields do not give its hash"
                verdict.add(Finding("ledger", "record.altered", reason, waiting.service, waiting.notification_id))
        except Tampered as fault:
            verdict.add(Finding("ledger", "record.altered", f"among those that wait: {fault.reason}"))


def _leaf(
    reader: LedgerReader, index: int, row: tuple[object, ...] | None, chains: ServiceChains, verdict: Verdict
) -> bytes:
    """The leaf hash to go on with: what the entry gives, or what was stored once where the entry is wrong."""
    try:
        if row is None:
            raise Tampered("the page that holds it is damaged")
        envelope = envelope_of(reader.tenant, row)
        computed = leaf_hash(envelope.encoded())
    except (Tampered, UnicodeEncodeError) as fault:
        verdict.add(Finding("ledger", "record.altered", str(fault), index=index))
        return _stored_leaf(reader, index) or bytes(32)
    if not envelope.intact:
        reason = "its fields do not give its hash"
        verdict.add(Finding("ledger", "record.altered", reason, envelope.service, envelope.notification_id, index))
        chains.pass_over(envelope)
        return _stored_leaf(reader, index) or computed
    for found in chains.follow(envelope, index):
        verdict.add(found)
    return computed


def _stored_leaf(reader: LedgerReader, index: int) -> bytes | None:
    try:
        return reader.node(0, index)
    except Tampered:
        return None


def _compare_nodes(reader: LedgerReader, pending: dict[tuple[int, int], bytes], verdict: Verdict) -> None:
    by_level: dict[int, list[int]] = {}
    for level, place in pending:
        by_level.setdefault(level, []).append(place)
    for level, places in by_level.items():
        stored = reader.nodes(level, min(places), max(places) + 1)
        for place in places:
            if stored.get(place) != pending[level, place]:
                reason = f"the stored hash of subtree ({level}, {place}) is not what its leaves give"
                verdict.add(Finding("ledger", "tree.altered", reason, index=place << level))
    pending.clear()


def _signed(reader: LedgerReader, public_key: bytes, verdict: Verdict) -> notes.Checkpoint | None:
    try:
        verdict.note = reader.note()
        if verdict.note:
            return notes.verify(verdict.note, reader.tenant, public_key)
        if reader.size():
            verdict.add(Finding("ledger", "checkpoint.invalid", "there are entries and no checkpoint"))
    except Tampered as fault:
        verdict.add(Finding("ledger", "checkpoint.invalid", fault.reason))
    return None


def _beside(path: Path, tenant: str, public_key: bytes, verdict: Verdict) -> notes.Checkpoint | None:
    """The checkpoint kept beside the file, under which the ledger must begin."""
    try:
        return notes.verify(checkpoint_file(path).read_text(encoding="utf-8"), tenant, public_key)
    except FileNotFoundError:
        if verdict.note:
            verdict.add(Finding("ledger", "checkpoint.invalid", f"{checkpoint_file(path).name} is gone"))
    except (Tampered, UnicodeDecodeError, OSError) as fault:
        verdict.add(Finding("ledger", "checkpoint.invalid", f"{checkpoint_file(path).name}: {fault}"))
    return None


def verify_user(reader: LedgerReader, user: str, public_key: bytes) -> Verdict:
    """Recompute one user's entries: hashes, the link to the event before each, inclusion under the checkpoint."""
    verdict = Verdict()
    try:
        with reader.snapshot():
            signed = _signed(reader, public_key, verdict)
            after, seen, node = -1, 0, cache(reader.node)  # proofs of one tree share most of their nodes
            while page := reader.of_user(user, after, CHUNK):
                for entry in page:
                    for found in _user_faults(reader, entry, signed, node):
                        verdict.add(found)
                after, seen = page[-1].index, seen + len(page)
            verdict.entries = seen
    except Refusal as refusal:
        verdict.add(Finding("ledger", "file.damaged", refusal.reason))
    return verdict


def _user_faults(reader: LedgerReader, entry: Entry, signed: notes.Checkpoint | None, node: Node) -> Iterator[Finding]:
    envelope, index = entry.envelope, entry.index
    place = (envelope.service, envelope.notification_id, index)
    if not envelope.intact:
        yield Finding("ledger", "record.altered", "its fields do not give its hash", *place)
        return
    number = envelope.notification_id
    before = GENESIS if number == 1 else reader.hash_of(envelope.service, number - 1)
    if before is None:
        yield Finding("ledger", "record.missing", f"nothing comes before {number}", envelope.service, number - 1)
    elif before != envelope.prev_hash:
        yield Finding("ledger", "chain.broken", "it does not name the hash of the event before it", *place)
    if signed is None:
        return
    try:
        proof = inclusion_proof(index, signed.size, node)
        verify_inclusion(leaf_hash(envelope.encoded()), index, signed.size, proof, signed.root)
    except (BadProof, ValueError) as fault:
        yield Finding("ledger", "checkpoint.contradicted", str(fault), *place)
