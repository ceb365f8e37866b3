"""Turns the server's asynchronous "permissions violation" into an exception on the call that caused it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

from remit_contracts.errors import Refusal

_VIOLATION = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]+)\"", re.I)


class PermissionViolation(Refusal):
    """The bus server refused a publish or a subscription: that subject is not within the caller's remit."""

    code = "policy.bus_permission"

    def __init__(self, operation: str, subject: str) -> None:
        super().__init__(f"the bus refuses your {operation} to {subject}: it is outside your own subjects")
        self.operation = operation
        self.subject = subject


class Violations:
    """Futures waiting for the server's word on a subject."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self.shut_out = False
        """The bus has refused the credential since: whoever is cut off comes back at once, and hears this."""

    async def heard(self, fault: Exception) -> None:
        """The connection's error callback."""
        self.shut_out |= "authorization violation" in str(fault).lower()
        found = _VIOLATION.search(str(fault))
        if not found:
            return
        operation, subject = found.group(1).lower(), found.group(2)
        for refused in self._waiting.get(subject.lower(), ()):
            if not refused.done():
                refused.set_exception(PermissionViolation(operation, subject))

    @contextmanager
    def watching(self, subject: str) -> Iterator[asyncio.Future[None]]:
        """A future that fails with PermissionViolation if the server refuses `subject` meanwhile."""
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        key = subject.lower()  # the client library lower-cases the server's words
        self._waiting.setdefault(key, set()).add(refused)
        try:
            yield refused
        finally:
            self._waiting[key].discard(refused)
            if not self._waiting[key]:
                del self._waiting[key]
            if refused.done() and not refused.cancelled():
                refused.exception()
            else:
                refused.cancel()
