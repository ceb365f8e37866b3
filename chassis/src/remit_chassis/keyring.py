"""Users' data keys as services get them: from the credential broker, sealed to the service, kept for minutes.

Erasing a user destroys the key at the broker; what is cached here ends within CACHE_SECONDS, or at once with `forget`.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import orjson
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, SealedBox

from remit_contracts.errors import Unavailable

if TYPE_CHECKING:
    from remit_chassis.vaultfile import VaultFile

CACHE_SECONDS = 300.0
CACHE_ENTRIES = 10_000
KEY_BYTES = 32

Ask = Callable[[str, str, str, str, bytes], Awaitable[bytes]]
"""`ask(tenant, user, service, verb, payload)`: the answer's payload, a refusal raised."""


class UserKeys(Protocol):
    """Where a user's data key (32 bytes) comes from."""

    def cached(self, tenant: str, user: str) -> bytes | None:
        """The key when it is at hand."""

    async def key(self, tenant: str, user: str) -> bytes:
        """The key, made at first use; raises Absent("absent.erased") when it was destroyed, Unavailable."""

    def forget(self, tenant: str, user: str) -> None:
        """Drop what is at hand of this user."""


class CachedUserKeys:
    """Keys from `fetch`, kept for CACHE_SECONDS and CACHE_ENTRIES at most; one fetch at a time for a user."""

    def __init__(
        self, fetch: Callable[[str, str], Awaitable[bytes]], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._kept: OrderedDict[tuple[str, str], tuple[bytes, float]] = OrderedDict()
        self._fetching: dict[tuple[str, str], asyncio.Future[bytes]] = {}

    def cached(self, tenant: str, user: str) -> bytes | None:
        """The key while it is kept."""
        kept = self._kept.get((tenant, user))
        if kept is None:
            return None
        if kept[1] <= self._monotonic():
            del self._kept[tenant, user]
            return None
        return kept[0]

    async def key(self, tenant: str, user: str) -> bytes:
        """The key, fetched when it is not kept."""
        key = self.cached(tenant, user)
        if key is not None:
            return key
        fetching = self._fetching.get((tenant, user))
        if fetching is None:
            fetching = self._fetching[tenant, user] = asyncio.ensure_future(self._fetch_and_keep(tenant, user))
            fetching.add_done_callback(lambda _: self._fetching.pop((tenant, user), None))
        # Shielded: whoever gives up waiting must not end the fetch for the others.
        return await asyncio.shield(fetching)

    def forget(self, tenant: str, user: str) -> None:
        """Drop the key, and the result of a fetch that is under way."""
        self._kept.pop((tenant, user), None)
        self._fetching.pop((tenant, user), None)

    async def _fetch_and_keep(self, tenant: str, user: str) -> bytes:
        me = asyncio.current_task()
        key = await self._fetch(tenant, user)
        if self._fetching.get((tenant, user)) is me:
            self._kept[tenant, user] = (key, self._monotonic() + CACHE_SECONDS)
            if len(self._kept) > CACHE_ENTRIES:
                self._kept.popitem(last=False)
        return key


class BrokerUserKeys(CachedUserKeys):
    """Keys asked of the credential broker on the bus, sealed to this service's box key (X25519 seed, 32 bytes)."""

    def __init__(
        self,
        *,
        ask: Ask,
        service: str,
        box_seed: bytes,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(self._ask_broker, monotonic=monotonic)
        self._ask = ask
        self._payload = orjson.dumps({"service": service})
        self._box = SealedBox(PrivateKey(box_seed))

    async def _ask_broker(self, tenant: str, user: str) -> bytes:
        answer = orjson.loads(await self._ask(tenant, user, "credential-broker", "user-key", self._payload))
        try:
            key: bytes = self._box.decrypt(b64decode(answer["sealed_key"], validate=True))
        except (CryptoError, KeyError, TypeError, ValueError):
            raise Unavailable("the credential broker's answer holds no key sealed to this service") from None
        if len(key) != KEY_BYTES:
            raise Unavailable(f"the credential broker's answer holds a key of {len(key)} bytes")
        return key


class VaultUserKeys(CachedUserKeys):
    """Keys straight from the vault: for the credential broker itself, and for commands on a stopped home."""

    def __init__(self, vault: VaultFile, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        async def fetch(tenant: str, user: str) -> bytes:
            return await asyncio.to_thread(vault.user_key, tenant, user)

        super().__init__(fetch, monotonic=monotonic)
