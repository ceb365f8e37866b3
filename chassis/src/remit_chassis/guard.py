"""The guard that every request passes before its handler.

What the bus server proves (the subject) is believed; all else is checked: the reply subject, because the server does
not check it and an answer sent there would be ours; headers, because they reach us as the client wrote them; size,
because the server's limit is one for all.
"""

from __future__ import annotations

from collections.abc import Mapping

from remit_contracts.errors import ForeignReply, MalformedSubject, PayloadTooLarge
from remit_contracts.identity import Caller
from remit_contracts.subjects import is_service_reply, parse_request, session_of_reply

TRACE_HEADER = "traceparent"


def admit(subject: str, reply: str, payload_bytes: int, *, max_bytes: int) -> Caller:
    """Who asks, or a Refusal: MalformedSubject, ForeignReply or PayloadTooLarge.

    Example: ("remit.acme.u-1.cmd.auth.whoami", "_INBOX.acme.u-1.s-9.x", 2) is Caller("acme", "u-1", "s-9").
    """
    request = parse_request(subject)
    if not reply:
        raise MalformedSubject("a request without a reply subject cannot be answered: use request/reply")
    if request.kind == "cmd":
        caller = Caller(request.tenant, request.user, session_of_reply(reply, request.tenant, request.user))
    elif is_service_reply(reply):
        caller = Caller(request.tenant, request.user)
    else:
        raise ForeignReply("a service is answered under its own inbox only")
    if payload_bytes > max_bytes:
        raise PayloadTooLarge(f"the payload has {payload_bytes} bytes and may have {max_bytes}")
    return caller


def trace_parent(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The only inbound header that is looked at: a W3C `traceparent`, for the tracing library to parse or refuse.

    `Nats-*`, `Status` and every other header are dropped here: forged ones have turned services into deputies.
    """
    value = headers.get(TRACE_HEADER) if headers else None
    return {TRACE_HEADER: value} if value and len(value) <= 64 and value.isascii() else {}
