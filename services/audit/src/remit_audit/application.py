"""Trails as their readers get them: a page, a verification, a proof. Each reading is recorded before it is shown."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog

from remit_audit import checkpoint as notes
from remit_audit.access import ABSENT, Admitted, admit
from remit_audit.domain import Purpose, TrailReading
from remit_audit.findings import Finding
from remit_audit.ledger_reader import Entry, LedgerReader
from remit_audit.merkle import EMPTY_ROOT, inclusion_proof
from remit_audit.projections import TrailProjection
from remit_audit.states import open_state, run_of
from remit_audit.verification import Verdict, verify_user
from remit_contracts.errors import Absent, Tampered, Unavailable
from remit_contracts.identity import Caller
from remit_contracts.trails import (
    ERASED,
    UNREADABLE,
    CheckpointShown,
    ProofBundle,
    ProveEntry,
    ProvenEvent,
    ShowCheckpoint,
    ShowTrail,
    TrailEntry,
    TrailPage,
    TrailVerified,
    VerifyTrail,
)

if TYPE_CHECKING:
    from remit_audit.consumer import Consumer
    from remit_audit.follower import Follower
    from remit_audit.mongo import TrailRepository
    from remit_chassis.service import Service

PAGE_BYTES = 512 * 1024
ENTRY_BYTES = 1_000_000
"""A larger entry alone would not fit a message of the bus; its size is told in its place."""
CATCH_UP_SECONDS = 1.0


class Trails:
    """Answers what is asked about trails, from read models once `use` has named their database."""

    def __init__(self, service: Service, consumer: Consumer, ledger_dir: Path, public_key: bytes) -> None:
        self._service = service
        self._consumer = consumer
        self._ledger_dir = ledger_dir
        self._public_key = public_key
        self._repository: TrailRepository | None = None
        self._projections: dict[str, TrailProjection] = {}
        self._readers: dict[str, LedgerReader] = {}

    async def show(self, command: ShowTrail, caller: Caller) -> TrailPage:
        """A page of a trail, decrypted. The first page waits a moment for what services have stored just now.

        Raises Tampered when the ledger takes no events: a page of it would pass for the whole trail.
        """
        admitted = await admit(self._service, caller, command.of)
        pending, _ = await asyncio.gather(
            self._caught_up(caller.tenant, first_page=command.after is None),
            self._record(caller, admitted, "show", command.after, command.limit),
        )
        reader = self.reader(caller.tenant)
        if reader is None:
            return TrailPage(entries=[], pending=pending)
        after = -1 if command.after is None else command.after
        found = await self._entries(reader, admitted.user, after, command.limit + 1)
        note = await asyncio.to_thread(reader.note)
        page = fitting(found[: command.limit])
        more = len(page) < len(found)
        entries = await self._opened(caller.tenant, admitted.user, page)
        return TrailPage(entries=entries, next=page[-1].index if more else None, checkpoint=note, pending=pending)

    async def verify(self, command: VerifyTrail, caller: Caller) -> TrailVerified:
        """Recompute a trail's entries: hashes, chain, inclusion under the signed checkpoint.

        That the ledger takes no events is a fault also where these entries verify: what came later is not among them.
        """
        admitted = await admit(self._service, caller, command.of)
        await self._record(caller, admitted, "verify", None, None)
        refused = None
        try:
            await self._caught_up(caller.tenant, first_page=True)
        except Tampered as fault:
            refused = Finding("ledger", "checkpoint.contradicted", fault.reason)
        reader = self.reader(caller.tenant)
        verdict = await asyncio.to_thread(verify_user, reader, admitted.user, self._public_key) if reader else Verdict()
        if refused:
            verdict.add(refused)
        return TrailVerified(
            ok=verdict.ok,
            entries=verdict.entries,
            checkpoint=verdict.note,
            faults=[finding.fault() for finding in verdict.findings],
        )

    async def prove(self, command: ProveEntry, caller: Caller) -> ProofBundle:
        """One entry with its audit path; raises Absent when it is not there or in another user's trail."""
        admitted = await admit(self._service, caller, command.of)
        await self._record(caller, admitted, "prove", command.index, 1)
        reader = self.reader(caller.tenant)
        if reader is None:
            raise Absent(ABSENT)
        return await asyncio.to_thread(proof_of, reader, admitted.user, command.index, self._public_key)

    async def checkpoint(self, _: ShowCheckpoint, caller: Caller) -> CheckpointShown:
        """The tenant's latest checkpoint, whose signature is checked before it is handed out."""
        reader = self.reader(caller.tenant)
        note = await asyncio.to_thread(reader.note) if reader else ""
        empty = notes.Checkpoint(notes.origin_of(caller.tenant), 0, EMPTY_ROOT)
        signed = notes.verify(note, caller.tenant, self._public_key) if note else empty
        return CheckpointShown(
            checkpoint=note, size=signed.size, root=signed.root.hex(), public_key=self._public_key.hex()
        )

    def reader(self, tenant: str) -> LedgerReader | None:
        """The tenant's ledger, opened once; None when there is none yet."""
        if tenant not in self._readers:
            try:
                self._readers[tenant] = LedgerReader(self._ledger_dir / f"{tenant}.sqlite", tenant)
            except Absent:
                return None
        return self._readers[tenant]

    def use(self, repository: TrailRepository) -> None:
        """Read trails from read models in this database."""
        self._repository = repository

    def projected(self, follower: Follower) -> TrailProjection | None:
        """The projection of a tenant's ledger, to be kept going; None without a database."""
        reader = self.reader(follower.tenant)
        if self._repository is None or reader is None:
            return None
        projection = self._projections[follower.tenant] = TrailProjection(self._repository, reader)
        return projection

    def close(self) -> None:
        """Let the ledgers and the read models go."""
        if self._repository:
            self._repository.close()
        for reader in self._readers.values():
            reader.close()

    async def _caught_up(self, tenant: str, *, first_page: bool) -> int:
        return await self._consumer.pending(tenant, within_seconds=CATCH_UP_SECONDS) if first_page else 0

    async def _record(
        self, caller: Caller, admitted: Admitted, purpose: Purpose, after: int | None, limit: int | None
    ) -> None:
        reading = TrailReading.record(
            reading_id=uuid4(),
            of=admitted.user,
            purpose=purpose,
            session=caller.session,
            after=after,
            limit=limit,
            decision=admitted.decision,
            at=self._service.clock(),
        )
        await self._service.stores.of(caller.tenant).save(reading, user=caller.user)

    async def _entries(self, reader: LedgerReader, user: str, after: int, limit: int) -> list[Entry]:
        """From the read model where it is at the ledger's end, else from the ledger: they hold the same."""
        projection = self._projections.get(reader.tenant)
        follower = self._consumer.followers.get(reader.tenant)
        if self._repository and projection and follower and projection.position + 1 == follower.ledger.size:
            try:
                return await self._repository.of_user(reader.tenant, user, after, limit)
            except (Unavailable, Tampered) as fault:
                structlog.get_logger().warning(
                    "audit.read_model_passed_over", tenant=reader.tenant, reason=fault.reason
                )
        return await asyncio.to_thread(reader.of_user, user, after, limit)

    async def _opened(self, tenant: str, user: str, entries: list[Entry]) -> list[TrailEntry]:
        try:
            key = await self._service.user_keys.key(tenant, user) if entries else b""
        except Absent as erased:
            if erased.refusal_code != "absent.erased":
                raise
            key = None
        return [shown(entry, key) for entry in entries]


def fitting(entries: list[Entry]) -> list[Entry]:
    """As many of the first entries as fit a message of the bus; at least one."""
    total = 0
    for place, entry in enumerate(entries):
        total += len(entry.envelope.state)
        if total > PAGE_BYTES and place:
            return entries[:place]
    return entries


def shown(entry: Entry, key: bytes | None) -> TrailEntry:
    """An entry as its reader sees it; without a key its data is erased."""
    envelope = entry.envelope
    data: Any = ERASED
    if key is not None:
        try:
            data = open_state(envelope, key)
        except Tampered:
            data = UNREADABLE
    run_id = run_of(envelope, data if isinstance(data, dict) else {})
    if isinstance(data, dict) and len(envelope.state) > ENTRY_BYTES:
        data = {"omitted_bytes": len(envelope.state)}
    return TrailEntry(
        index=entry.index,
        service=envelope.service,
        notification_id=envelope.notification_id,
        recorded_at=envelope.recorded_at,
        event=envelope.topic,
        user=envelope.user,
        aggregate=envelope.originator_id,
        run_id=run_id,
        data=data,
        hash=envelope.hash.hex(),
    )


def proof_of(reader: LedgerReader, user: str, index: int, public_key: bytes) -> ProofBundle:
    """The proof of a user's entry; raises Absent, and Tampered when the ledger cannot prove it."""
    with reader.snapshot():
        entry = reader.entry(index)
        if entry is None or entry.envelope.user != user:
            raise Absent(ABSENT)
        note = reader.note()
        size = notes.verify(note, reader.tenant, public_key).size
        if index >= size:
            raise Tampered(f"entry {index} lies under no checkpoint", code="tampered.ledger")
        proof = inclusion_proof(index, size, reader.node)
    envelope = entry.envelope
    return ProofBundle(
        event=ProvenEvent(
            service=envelope.service,
            tenant=envelope.tenant,
            user=envelope.user,
            notification_id=envelope.notification_id,
            originator_id=envelope.originator_id,
            originator_version=envelope.originator_version,
            topic=envelope.topic,
            recorded_at=envelope.recorded_at,
            state=base64.b64encode(envelope.state).decode(),
            prev_hash=envelope.prev_hash.hex(),
            hash=envelope.hash.hex(),
        ),
        index=index,
        size=size,
        proof=[sibling.hex() for sibling in proof],
        checkpoint=note,
        public_key=public_key.hex(),
    )
