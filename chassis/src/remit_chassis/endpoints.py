"""What a service answers, and the one pipeline through which every request goes: guard, decode, handler, answer.

Users' commands come through the doorman, services' cold requests by FastStream, hot ones by a bare subscription; all
end in `Endpoint.serve`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import structlog

from remit_chassis import guard, telemetry
from remit_contracts import subjects
from remit_contracts.errors import ForeignReply, MalformedSubject, Refusal
from remit_contracts.identity import Caller, is_label
from remit_contracts.messages import Command, encode

if TYPE_CHECKING:
    from nats.aio.msg import Msg

C = TypeVar("C", bound=Command)
Handler = Callable[[bytes, Caller], Awaitable[bytes]]
Publish = Callable[[str, bytes], Awaitable[None]]
Confirm = Callable[[str], Awaitable[None]]
"""Returns when a tenant may be answered; raises the refusal when its log is contradicted."""

DEFAULT_MAX_BYTES = 64 * 1024
INTERNAL = orjson.dumps(
    {
        "error": {
            "code": "internal",
            "reason": "an unexpected fault: it is in the service's log",
            "decision_id": None,
            "retry_after_seconds": None,
        }
    }
)


def decoding(model: type[C], handler: Callable[[C, Caller], Awaitable[Any]]) -> Handler:
    """Wrap a handler of models into one of bytes."""

    async def handle(payload: bytes, caller: Caller) -> bytes:
        return encode(await handler(model.from_bytes(payload), caller))

    return handle


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One verb of a service. `hot` endpoints skip spans and pydantic; `from_log` says that the answer rests on the
    tenant's log, or is added to it: there is none while the log is contradicted."""

    kind: str
    service: str
    verb: str
    handle: Handler
    max_bytes: int = DEFAULT_MAX_BYTES
    hot: bool = False
    from_log: bool = True

    @property
    def subject(self) -> str:
        """What to subscribe to."""
        return subjects.any_request(self.kind, self.service, self.verb)

    async def serve(
        self,
        message: Msg,
        publish: Publish,
        metrics: telemetry.Metrics,
        confirm: Confirm,
    ) -> None:
        """Answer one message. Never raises, and never publishes to a reply subject that the guard did not admit."""
        subject, reply, headers, payload = message.subject, message.reply, message.headers, message.data
        began = time.perf_counter()
        outcome = "ok"
        try:
            caller = guard.admit(subject, reply, len(payload), max_bytes=self.max_bytes)
        except Refusal as refusal:
            await self._refuse_unadmitted(refusal, subject, reply, publish)
            metrics.requests.labels(self.kind, self.verb, refusal.refusal_code).inc()
            return
        try:
            if self.from_log:
                await confirm(caller.tenant)
            if self.hot and not headers:
                answer = await self.handle(payload, caller)
            else:
                with telemetry.server_span(f"{self.service}.{self.verb}", guard.trace_parent(headers)):
                    answer = await self.handle(payload, caller)
        except Refusal as refusal:
            outcome, answer = refusal.refusal_code, orjson.dumps(refusal.as_dict())
        except Exception:
            outcome, answer = "internal", INTERNAL
            structlog.get_logger().exception("request.failed", verb=self.verb, tenant=caller.tenant, user=caller.user)
        await publish(reply, answer)
        metrics.answered(self.kind, self.verb, outcome, time.perf_counter() - began)

    async def _refuse_unadmitted(self, refusal: Refusal, subject: str, reply: str, publish: Publish) -> None:
        structlog.get_logger().warning("request.refused", subject=subject[:200], code=refusal.refusal_code)
        goes_to = where_to_refuse(refusal, subject, reply, self.kind)
        if goes_to is not None:
            await publish(goes_to, orjson.dumps(refusal.as_dict()))


def where_to_refuse(refusal: Refusal, subject: str, reply: str, kind: str) -> str | None:
    """Where what the guard refused may be told: a foreign reply never hears it, so that the sender's own
    `live.refusal` does, as the subject proves them; None when it proves nobody."""
    if not isinstance(refusal, (ForeignReply, MalformedSubject)):
        return reply
    tokens = subject.split(".")
    named = len(tokens) > 2 and is_label(tokens[1]) and is_label(tokens[2])
    return subjects.live(tokens[1], tokens[2], "refusal") if named and kind == "cmd" else None
