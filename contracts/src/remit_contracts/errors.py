"""Refusals, and the one shape in which every one of them travels.

    RemitError
    +-- Refusal                     expected: answered to the caller with a code and a reason
    |   +-- MalformedIdentifier     request.malformed_id
    |   +-- MalformedCommand        request.malformed
    |   +-- MalformedSubject        request.malformed_subject
    |   +-- ForeignReply            request.foreign_reply
    |   +-- PayloadTooLarge         request.too_large
    |   +-- Denied                  policy.denied (and other policy.* codes)
    |   +-- Absent                  absent: not there, or not for this caller: the two answer alike
    |   +-- Conflict                conflict
    |   +-- Overloaded              overloaded
    |   +-- Unavailable             unavailable
    |   +-- NotSignedIn             auth.not_signed_in (and other auth.* codes)
    |   +-- Tampered                tampered
    +-- (anything else is a bug: logged with its traceback, answered as `internal` without one)

A reason names the bad value and the way out, and never holds a secret.
"""

from __future__ import annotations

from typing import Any, ClassVar

EXIT_CODES = {
    "request": 2,
    "policy": 3,
    "absent": 4,
    "unavailable": 5,
    "tampered": 6,
    "auth": 7,
    "overloaded": 75,
}
"""Exit code of the command line by the first part of a refusal's code; every other refusal exits 1."""


class RemitError(Exception):
    """Base of all that Remit raises on purpose."""


class Refusal(RemitError):
    """Something was refused: `code` is stable and dotted, `reason` is for people.

    `decision_id` names the recorded decision behind it; `retry_after_seconds` says when trying again makes sense.
    """

    code: ClassVar[str] = "refused"

    def __init__(
        self,
        reason: str,
        *,
        code: str | None = None,
        decision_id: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refusal_code = code or type(self).code
        self.decision_id = decision_id
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return refusal_from, (self.as_dict(),)

    def as_dict(self) -> dict[str, Any]:
        """`{"error": {"code", "reason", "decision_id", "retry_after_seconds"}}`."""
        return {
            "error": {
                "code": self.refusal_code,
                "reason": self.reason,
                "decision_id": self.decision_id,
                "retry_after_seconds": self.retry_after_seconds,
            }
        }

    @property
    def exit_code(self) -> int:
        """What the command line exits with."""
        return EXIT_CODES.get(self.refusal_code.partition(".")[0], 1)


class MalformedIdentifier(Refusal, ValueError):
    """A value that is no DNS label where an identifier belongs. `expected` says so without the value."""

    code = "request.malformed_id"

    def __init__(self, *, kind: str, value: object) -> None:
        self.expected = f"is no {kind}: use 1 to 63 of a-z, 0-9 and inner hyphens"
        super().__init__(f"{value!r:.80} {self.expected}")


class MalformedCommand(Refusal):
    """A payload that is not the command its subject promises."""

    code = "request.malformed"


class MalformedSubject(Refusal):
    """A subject with wildcards, empty, control or non-ASCII tokens, or of no known shape."""

    code = "request.malformed_subject"


class ForeignReply(Refusal):
    """A reply subject outside the caller's own inbox."""

    code = "request.foreign_reply"


class PayloadTooLarge(Refusal):
    """A payload over its command's limit."""

    code = "request.too_large"


class Denied(Refusal):
    """Policy said no, or could not say yes."""

    code = "policy.denied"


class Absent(Refusal):
    """Not there, or not for this caller."""

    code = "absent"


class Conflict(Refusal):
    """The thing changed, or exists already."""

    code = "conflict"


class Overloaded(Refusal):
    """A queue, quota or cap is full: try again later."""

    code = "overloaded"


class Unavailable(Refusal):
    """A part that is needed does not answer."""

    code = "unavailable"


class NotSignedIn(Refusal):
    """No valid credential."""

    code = "auth.not_signed_in"


class Tampered(Refusal):
    """Stored or received data that its hash, signature or proof contradicts."""

    code = "tampered"


_BY_FAMILY: dict[str, type[Refusal]] = {
    "request": MalformedCommand,
    "policy": Denied,
    "absent": Absent,
    "conflict": Conflict,
    "overloaded": Overloaded,
    "unavailable": Unavailable,
    "auth": NotSignedIn,
    "tampered": Tampered,
}


def refusal_from(payload: Any) -> Refusal:
    """The exception for a refusal as it came off the bus; an ill-shaped one becomes a plain Refusal that says so."""
    error = payload.get("error") if isinstance(payload, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("code"), str):
        return Refusal("the answer was no refusal that this client understands", code="internal")
    family = _BY_FAMILY.get(error["code"].partition(".")[0], Refusal)
    return family(
        str(error.get("reason", "")),
        code=error["code"],
        decision_id=error.get("decision_id"),
        retry_after_seconds=error.get("retry_after_seconds"),
    )
