"""Whether a session is what its client calls it: asked before a service records it as a fact.

The bus server proves tenant and user, by the subject that a client may publish to. It does not prove the session: a
request's reply subject is the sender's to choose, and names any session of the right shape.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final, Protocol

from remit_contracts.directory import DescribeSession
from remit_contracts.identity import Caller

SESSION_SECONDS: Final = 5.0


class Ask(Protocol):
    """`Service.ask`."""

    def __call__(
        self, tenant: str, user: str, service: str, verb: str, payload: bytes, *, timeout_seconds: float
    ) -> Coroutine[Any, Any, bytes]:
        """The answer's bytes; a refusal is raised."""


async def require_session(ask: Ask, caller: Caller, *, within_seconds: float = SESSION_SECONDS) -> None:
    """Return when auth knows the caller's session as an open one of theirs.

    Raises NotSignedIn("auth.session_ended"), and Unavailable when auth does not answer: then it is not recorded either.
    """
    question = DescribeSession(session=caller.session).to_bytes()
    await ask(caller.tenant, caller.user, "auth", "describe-session", question, timeout_seconds=within_seconds)
