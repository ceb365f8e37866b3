"""Every effect against the permit that it needed: authorised first, by policy's signature, for exactly this call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from remit_audit.findings import Finding
from remit_audit.states import open_state
from remit_chassis.permits import PermitVerifier
from remit_contracts.errors import MalformedCommand, Tampered
from remit_contracts.events import Envelope
from remit_contracts.permits import MISMATCH, PermitRefused, args_digest

AUTHORIZED = "runtime.Run.ToolCallAuthorized"
COMPLETED = "runtime.Run.ToolCallCompleted"
UNKNOWN = "runtime.Run.ToolCallUnknown"
EFFECTS = (AUTHORIZED, COMPLETED, UNKNOWN)
ENDED = frozenset({"runtime.Run.Completed", "runtime.Run.Failed", "runtime.Run.Cancelled"})

Keys = Mapping[str, bytes | None]
"""User -> data key; None when it is destroyed. A user who is not in it was not asked for."""


class EffectCheck:
    """Follows the runs of a tenant in the order of the log. Memory is held for runs that have not ended."""

    def __init__(self, verifier: PermitVerifier, keys: Keys) -> None:
        self.checked = 0
        self.erased = 0
        self._verifier = verifier
        self._keys = keys
        self._open: dict[str, set[int]] = {}

    def follow(self, envelope: Envelope, index: int) -> Iterator[Finding]:
        """What is wrong with the event's effect, if it is one."""
        run = envelope.originator_id
        if envelope.topic in ENDED:
            self._open.pop(run, None)
        if envelope.topic not in EFFECTS or envelope.user not in self._keys:
            return
        key = self._keys[envelope.user]
        if key is None:
            self.erased += 1
            return
        place = (envelope.service, envelope.notification_id, index)
        try:
            data = open_state(envelope, key)
            ordinal = int(data["ordinal"])
        except Tampered as fault:
            yield Finding("ledger", "record.altered", fault.reason, *place)
            return
        except (KeyError, TypeError, ValueError):
            yield Finding("permit", "permit.missing", "it names no ordinal", *place)
            return
        self.checked += 1
        authorised = self._open.setdefault(run, set())
        if envelope.topic == AUTHORIZED:
            authorised.add(ordinal)
            yield from self._permit_faults(envelope, data, ordinal, index)
        elif ordinal in authorised:
            authorised.discard(ordinal)
        else:
            reason = f"tool call {ordinal} of run {run} has an outcome and no authorisation before it"
            yield Finding("permit", "effect.unauthorized", reason, *place)

    def _permit_faults(self, envelope: Envelope, data: dict[str, Any], ordinal: int, index: int) -> Iterator[Finding]:
        place = (envelope.service, envelope.notification_id, index)
        token = data.get("permit")
        if not isinstance(token, str) or not token:
            yield Finding("permit", "permit.missing", "the authorisation holds no permit", *place)
            return
        try:
            claims = self._verifier.verify(token, None)
            claims.require(
                tenant=envelope.tenant,
                user=envelope.user,
                run=envelope.originator_id,
                ordinal=ordinal,
                tool=str(data.get("tool")),
                args_digest=args_digest(data["arguments"]),
            )
        except PermitRefused as refusal:
            code = "permit.mismatch" if refusal.refusal_code == MISMATCH else "permit.invalid"
            yield Finding("permit", code, refusal.reason, *place)
        except (KeyError, TypeError, MalformedCommand) as fault:
            yield Finding("permit", "permit.mismatch", f"the arguments are not what was permitted: {fault}", *place)
