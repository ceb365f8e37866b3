"""What is found wrong with a record or a copy, by one shape and one list of codes.

chain.broken        an event does not name the hash of the one before it
record.altered      an event's fields do not give its hash
record.forked       one notification id, two events
record.missing      a copy lacks an event that another copy has
record.duplicated   a copy has an event twice, or out of order
record.pending      (no fault) stored by a service, not yet in the ledger
file.damaged        the file's structure or schema was changed
tree.altered        a stored node is not what its leaves give
checkpoint.invalid  no valid signature, or of another log
checkpoint.contradicted  the ledger does not begin with what was signed
key.missing, key.unreadable  the vault has no key of a tenant or user, or one that does not open
permit.missing, permit.invalid, permit.mismatch  an effect without the permit that it needs
effect.unauthorized a tool call has an outcome and no earlier authorisation
stream.rewound, stream.replaced, stream.shrunk, stream.unfit  what the bus keeps is not what it was
store.rewound       a service's log ends before what the ledger has of it
service.silent      a service does not say how far its log goes
"""

from __future__ import annotations

from dataclasses import dataclass

from remit_contracts.trails import Fault


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault that was found. `copy` is where it was seen: store, stream, ledger, permit or vault."""

    copy_name: str
    code: str
    reason: str
    service: str = ""
    notification_id: int | None = None
    index: int | None = None

    def fault(self) -> Fault:
        """The same, as it is answered."""
        return Fault(
            copied_in=self.copy_name,
            service=self.service,
            notification_id=self.notification_id,
            index=self.index,
            code=self.code,
            reason=self.reason,
        )
