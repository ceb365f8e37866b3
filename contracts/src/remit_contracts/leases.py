"""Leases: one credential, lent for one tool call against one permit, sealed to the tool host.

    verb              command       answer          asked by
    rpc lease         LeaseRequest  LeaseAnswer     agent-runtime (hot: `fast_leases` holds the same shapes)
    cmd list-leases   ListLeases    LeasesListed    a user, about their own

Nothing that the runtime gets can be read by it: `LeaseAnswer.sealed` is base64 of a NaCl Box (24-byte nonce in front)
from the broker's key to the tool host's, over the JSON of `fast_leases.LeaseContent`.

    LeaseRefused
    +-- lease.permit_malformed, lease.permit_bad_signature, lease.permit_expired, lease.permit_not_yet_valid
    |                                 as the `permit.` codes of `permits`
    +-- lease.permit_mismatch         valid, and for another tenant, user, run or tool
    +-- lease.permit_used             leased against before
    +-- lease.permit_before_start     issued before the broker started: ask for a new decision
    +-- lease.connection_absent       neither one's own nor shared: connect first
    +-- lease.connection_revoked      there was one
    +-- lease.connection_without_host it may be sent nowhere: add it anew, with a host
    +-- lease.scope_widened           the permit's scopes go beyond the connection's
    +-- lease.connection_not_permitted    the permit does not name this connection

A permit names the connection that its tool call is for among its scopes, as `connection:NAME`, so that whoever asks for
the lease cannot choose another. Such a scope is no scope of the outside system, and no lease carries it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field

from remit_contracts.errors import Refusal
from remit_contracts.messages import Answer, Command
from remit_contracts.permits import MAX_TOKEN_BYTES

MAX_NAME: Final = 256
MAX_LISTED_LEASES: Final = 500

PERMIT_MISMATCH: Final = "lease.permit_mismatch"
PERMIT_USED: Final = "lease.permit_used"
PERMIT_EXPIRED: Final = "lease.permit_expired"
PERMIT_BEFORE_START: Final = "lease.permit_before_start"
CONNECTION_ABSENT: Final = "lease.connection_absent"
CONNECTION_REVOKED: Final = "lease.connection_revoked"
CONNECTION_WITHOUT_HOST: Final = "lease.connection_without_host"
SCOPE_WIDENED: Final = "lease.scope_widened"
CONNECTION_NOT_PERMITTED: Final = "lease.connection_not_permitted"

CONNECTION_SCOPE: Final = "connection:"
"""What the scope that names a permit's connection begins with."""

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
LeaseStatus = Literal["live", "expired", "revoked"]


class LeaseRefused(Refusal):
    """No credential is lent; `refusal_code` is one of the codes in the module's docstring."""

    code = "lease.refused"


class LeaseRequest(Command):
    """Lend what `tool` needs of `connection` to `run`, for the subject's user. The scopes come from the permit."""

    permit: Annotated[str, Field(min_length=1, max_length=MAX_TOKEN_BYTES, repr=False)]
    tool: Name
    connection: Name
    run: Name


class LeaseAnswer(Answer):
    """The lease, for the tool host alone to open. It is good once, until `expires_at`."""

    lease_id: str
    sealed: str = Field(repr=False)
    expires_at: datetime


class ListLeases(Command):
    """One's own leases, newest first."""

    limit: Annotated[int, Field(ge=1, le=MAX_LISTED_LEASES)] = 100


class LeaseRow(Answer):
    """One lease. `status`: live until it expires or is revoked; whether it was used, the run's trail says."""

    lease_id: str
    connection: str
    tool: str
    run: str
    scopes: tuple[str, ...]
    status: LeaseStatus
    issued_at: datetime
    expires_at: datetime


class LeasesListed(Answer):
    """Newest first."""

    leases: tuple[LeaseRow, ...]
