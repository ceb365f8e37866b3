"""What is asked of the audit service about a trail, and what it answers.

A trail is one user's entries of their tenant's ledger, in ledger order. An entry's `index` is its place in the whole
tenant's Merkle log, counted from 0, so a user's indexes have gaps where other people's entries lie. `of` names
another user of the same tenant, by id or by handle (`analyst`, `acme/analyst`); left out, a trail is the caller's
own. Hashes are lower-case hex.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from remit_contracts.messages import Answer, Command

MAX_PAGE = 500
"""Entries a page may hold; a page also ends early when it grows past about half a megabyte."""

ERASED: Literal["erased"] = "erased"
"""Stands for the data of an entry whose user's key is destroyed: the record stays and proves, the content is gone."""

UNREADABLE: Literal["unreadable"] = "unreadable"
"""Stands for data that the user's key does not open: altered, or of another key. `verify-trail` says which."""

MAX_INDEX = 2**62 - 1

Index = Annotated[int, Field(ge=0, lt=MAX_INDEX + 1)]


class ShowTrail(Command):
    """`cmd audit.show-trail`: a page of a trail, entries after index `after`; answered with TrailPage."""

    after: Index | None = None
    limit: int = Field(default=100, ge=1, le=MAX_PAGE)
    of: str | None = Field(default=None, max_length=127)


class VerifyTrail(Command):
    """`cmd audit.verify-trail`: recompute a trail's hashes, chain and proofs; answered with TrailVerified."""

    of: str | None = Field(default=None, max_length=127)


class ProveEntry(Command):
    """`cmd audit.prove-entry`: a proof of one entry that can be checked offline; answered with ProofBundle."""

    index: Index
    of: str | None = Field(default=None, max_length=127)


class ShowCheckpoint(Command):
    """`cmd audit.checkpoint`: the tenant's latest signed checkpoint; answered with CheckpointShown."""


class CheckCopies(Command):
    """`rpc audit.check`: compare every copy and proof; answered with AuditReport. Without `tenant`, of every tenant."""

    tenant: str | None = None


class FollowTenant(Command):
    """`rpc audit.follow`: begin this tenant's ledger, before anything happens there; answered with TenantFollowed."""


class TenantFollowed(Answer):
    """The ledger is there and takes what the tenant's stream brings; `entries` are in it already."""

    tenant: str
    entries: int


class TrailEntry(Answer):
    """One thing that happened. `recorded_at` is RFC 3339 in UTC; `aggregate` is 32 hex digits; `event` is the topic."""

    index: int
    service: str
    notification_id: int
    recorded_at: str
    event: str
    user: str
    aggregate: str
    run_id: str | None = None
    data: dict[str, Any] | Literal["erased", "unreadable"]
    hash: str


class TrailPage(Answer):
    """`next` goes into `after` for the following page and is null at the end.

    `pending` counts events of the tenant that services have stored and the ledger had not received when the page was
    read. `checkpoint` is the signed note under which the entries lie; empty while the ledger is.
    """

    entries: list[TrailEntry]
    next: int | None = None
    checkpoint: str = ""
    pending: int = 0


class Fault(Answer):
    """One record, or one file, that contradicts a hash, a signature, a proof or another copy.

    `copy` says where the contradiction was seen: `store`, `stream`, `ledger`, `permit` or `vault`; `notification_id`
    and `index` are null when no single record is meant. Serialised, `copied_in` is `copy`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)

    copied_in: str = Field(alias="copy")
    service: str = ""
    notification_id: int | None = None
    index: int | None = None
    code: str
    reason: str


class TrailVerified(Answer):
    """`ok` is true when `faults` is empty: `entries` were recomputed and lie under `checkpoint`."""

    ok: bool
    entries: int
    checkpoint: str = ""
    faults: list[Fault] = []


class CheckpointShown(Answer):
    """A C2SP signed note, its tree size and root, and the Ed25519 key (hex) that signed it."""

    checkpoint: str
    size: int
    root: str
    public_key: str


class ProvenEvent(Answer):
    """The fields of `events.Envelope`; `state` is the ciphertext in base64, hashes are hex."""

    service: str
    tenant: str
    user: str
    notification_id: int
    originator_id: str
    originator_version: int
    topic: str
    recorded_at: str
    state: str
    prev_hash: str
    hash: str


class ProofBundle(Answer):
    """All that `verify_proof.py` needs but the key to trust: compare `public_key` with the one the operator published.

    `proof` is the RFC 6962 audit path from the leaf up, 32-byte hashes in hex, in a tree of `size` leaves.
    """

    format: Literal["remit-proof-v1"] = "remit-proof-v1"
    event: ProvenEvent
    index: int
    size: int
    proof: list[str]
    checkpoint: str
    public_key: str


class CopiesChecked(Answer):
    """Which copies of a tenant's record were compared, and whether its effects were compared with their permits.

    `stores` are the services whose event store was read through; `heads` those whose store lies elsewhere, so that only
    the hash of its last event, which stands for all before it, was compared.
    """

    ledger: bool = False
    stores: list[str] = []
    heads: list[str] = []
    stream: bool = False
    permits: bool = False


class TenantReport(Answer):
    """One tenant's part of a report: ledger entries looked at, which copies were compared, what is wrong.

    `unchecked` says in words what this check promises and could not look at.
    """

    tenant: str
    checked: CopiesChecked = CopiesChecked()
    entries: int
    checkpoint: str = ""
    pending: int = 0
    effects_checked: int = 0
    erased: int = 0
    faults: list[Fault] = []
    unchecked: list[str] = []


class AuditReport(Answer):
    """`ok` is true when no tenant has a fault and nothing is left unchecked. `notes` say what no such check sees."""

    ok: bool
    tenants: list[TenantReport]
    notes: list[str] = []
