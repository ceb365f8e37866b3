"""What the auth service says about users and tenants, kept for at most two seconds and dropped at its notices.

Two seconds bound how long a change goes unnoticed when a notice is lost. A question that was under way when a notice
came is asked again, because its answer may be the old one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from remit_contracts.directory import SubjectDescribed, TenantDescribed
from remit_contracts.errors import Unavailable
from remit_contracts.identity import SYSTEM_USER
from remit_policy.shaping import TenantData, shape

FRESH_SECONDS = 2.0
MAX_ENTRIES = 10_000
ASK_SECONDS = 2.0
ATTEMPTS = 4

V = TypeVar("V")
Key = tuple[str, str]


class Kept(NamedTuple, Generic[V]):
    """A value and when it goes stale, by the monotonic clock."""

    value: V
    stale_at: float


class FreshCache(Generic[V]):
    """Values by (tenant, user). Concurrent questions about one key are asked once; the oldest entry makes room."""

    def __init__(self, ask: Callable[[str, str], Awaitable[V]], *, monotonic: Callable[[], float]) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._kept: dict[Key, Kept[V]] = {}
        self._asking: dict[Key, asyncio.Task[V]] = {}
        self._forgotten: dict[str, int] = {}

    def fresh(self, key: Key) -> V | None:
        """The value, while it is fresh."""
        kept = self._kept.get(key)
        return kept.value if kept and self._monotonic() < kept.stale_at else None

    async def get(self, key: Key) -> V:
        """The value, asked for when it is not fresh; what the question raises is raised to all who wait for it."""
        value = self.fresh(key)
        if value is not None:
            return value
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(self._fetch(key))
            task.add_done_callback(lambda done: self._asked(key, done))
        return await asyncio.shield(task)

    def forget(self, tenant: str) -> None:
        """Drop what is kept about a tenant, and what is being asked."""
        self._forgotten[tenant] = self._forgotten.get(tenant, 0) + 1
        for key in [key for key in self._kept if key[0] == tenant]:
            del self._kept[key]

    async def _fetch(self, key: Key) -> V:
        while True:
            before = self._forgotten.get(key[0], 0)
            stale_at = self._monotonic() + FRESH_SECONDS  # from when it was asked, not from when the answer came
            value = await self._ask(*key)
            if before == self._forgotten.get(key[0], 0):
                break
        self._kept.pop(key, None)
        while len(self._kept) >= MAX_ENTRIES:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = Kept(value, stale_at)
        return value

    def _asked(self, key: Key, task: asyncio.Task[V]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # retrieved here, should nobody wait any more


class Directory:
    """Users and tenants by the auth service; `ask(tenant, user, verb)` gives its raw answer or raises a Refusal."""

    def __init__(
        self, ask: Callable[[str, str, str], Awaitable[bytes]], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._subjects = FreshCache(self._describe_subject, monotonic=monotonic)
        self._tenants = FreshCache(self._describe_tenant, monotonic=monotonic)

    async def standing(self, tenant: str, user: str) -> tuple[SubjectDescribed, TenantData]:
        """A user and the tenant's roles, both as of one revision; raises Absent for an unknown user, or Unavailable."""
        for _ in range(ATTEMPTS):
            key = (tenant, user)
            subject = self._subjects.fresh(key) or await self._subjects.get(key)
            data = await self.tenant(tenant)
            if str(subject.revision) == data.revision:
                return subject, data
            self.forget(tenant)  # its notice was lost, or is still on its way
        raise Unavailable(f"the directory of {tenant} changes faster than it can be read", retry_after_seconds=1.0)

    async def tenant(self, tenant: str) -> TenantData:
        """The tenant's roles as the engine wants them; raises Absent or Unavailable."""
        key = (tenant, SYSTEM_USER)
        return self._tenants.fresh(key) or await self._tenants.get(key)

    def forget(self, tenant: str) -> None:
        """Something about this tenant changed."""
        self._subjects.forget(tenant)
        self._tenants.forget(tenant)

    async def _describe_subject(self, tenant: str, user: str) -> SubjectDescribed:
        return SubjectDescribed.from_bytes(await self._ask(tenant, user, "describe-subject"))

    async def _describe_tenant(self, tenant: str, user: str) -> TenantData:
        return shape(TenantDescribed.from_bytes(await self._ask(tenant, user, "describe-tenant")))
