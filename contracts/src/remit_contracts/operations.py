"""What every service answers to operators and to the auditor."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from remit_contracts.messages import Answer, Command

MAX_REPUBLISHED = 10_000

Position = Annotated[int, Field(ge=1, le=2**62)]


class Check(Answer):
    """One check of readiness: whether it passed, and what was seen; `code` is the refusal's when it failed with one."""

    ok: bool
    detail: str
    code: str = ""


class Health(Answer):
    """`ready` only when every check passes; the store's is a write that was synced to disk.

    `contradicted`: tenant -> why the service answers nothing for it (its store is damaged, or its stream holds another
    log), while it serves the others.
    """

    service: str
    version: str
    ready: bool
    checks: dict[str, Check]
    contradicted: dict[str, str] = {}


class MetricsShown(Answer):
    """The Prometheus text format. It names no tenant and no user."""

    exposition: str


class LogHead(Answer):
    """The last event of the subject's tenant: its number (0 for none) and hash in hex."""

    last_notification_id: int
    head_hash: str


class Republish(Command):
    """Publish notifications `first` to `last`, both included, to the tenant's stream again."""

    first: Position
    last: Position


class Republished(Answer):
    """How many events were published."""

    published: int
