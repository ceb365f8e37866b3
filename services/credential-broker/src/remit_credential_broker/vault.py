"""Opening the vault at start, and its secrets on the hot path.

VaultRefused    Refusal, code "vault"
    vault.key_unusable    the master key's file is missing, open to others or no key
    vault.wrong_key       the vault was sealed under another master key, or was altered
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from remit_chassis.vaultfile import VaultFile, load_master_key, load_or_create_master_key, parse_master_key
from remit_contracts.errors import Absent, Refusal, Tampered, Unavailable
from remit_contracts.identity import PLATFORM_TENANT, SYSTEM_USER

CACHE_SECONDS: Final = 60.0
CACHE_ENTRIES: Final = 10_000


class VaultRefused(Refusal):
    """The vault stays sealed; the reason says what to do."""

    code = "vault"


def master_key(given: SecretStr | None, file: Path, vault_file: Path) -> bytes:
    """The key given as hex, or the one in `file`, which is made when there is neither key nor vault yet.

    Raises VaultRefused.
    """
    if given is not None:
        try:
            return parse_master_key(given.get_secret_value())
        except ValueError as fault:
            raise VaultRefused(f"REMIT_BROKER_MASTER_KEY holds {fault}", code="vault.key_unusable") from None
    try:
        # A new key beside an old vault would open nothing in it, and would hide that the right one is missing.
        return load_master_key(file) if vault_file.exists() else load_or_create_master_key(file)
    except FileNotFoundError:
        reason = f"{vault_file} is there and its master key {file} is not: restore the key from a backup"
        raise VaultRefused(reason, code="vault.key_unusable") from None
    except (OSError, ValueError) as fault:
        raise VaultRefused(str(fault), code="vault.key_unusable") from None


def open_vault(path: Path, key: bytes) -> VaultFile:
    """The vault, after one of its keys was opened with the master key.

    Raises VaultRefused when that fails, Unavailable when the disk does.
    """
    try:
        vault = VaultFile(path, key)
    except OSError as fault:
        raise Unavailable(f"the vault {path} cannot be made: {fault.strerror}") from fault
    try:
        # Made at the first start and never destroyed: whoever opens it has the key that sealed the vault.
        vault.user_key(PLATFORM_TENANT, SYSTEM_USER)
    except Unavailable:
        vault.close()
        raise
    except Tampered:
        vault.close()
        reason = f"{path} does not open with this master key: give it the key that it was made with"
        raise VaultRefused(reason, code="vault.wrong_key") from None
    return vault


class Secrets:
    """The vault's secrets by (tenant, owner, name), kept in memory for CACHE_SECONDS and CACHE_ENTRIES at most."""

    def __init__(self, vault: VaultFile, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._vault = vault
        self._monotonic = monotonic
        self._kept: OrderedDict[tuple[str, str, str], tuple[bytes, float]] = OrderedDict()
        self._reading: dict[tuple[str, str, str], object] = {}

    async def get(self, tenant: str, owner: str, name: str) -> bytes:
        """Raises Absent when there is none, or its owner was erased."""
        place = (tenant, owner, name)
        kept = self._kept.get(place)
        if kept is not None and kept[1] > self._monotonic():
            return kept[0]
        mine = self._reading[place] = object()
        try:
            secret = await asyncio.to_thread(self._vault.get_secret, tenant, owner, name)
            if self._reading.get(place) is mine:  # else it was destroyed meanwhile
                self._keep(place, secret)
        finally:
            if self._reading.get(place) is mine:
                del self._reading[place]
        return secret

    def _keep(self, place: tuple[str, str, str], secret: bytes) -> None:
        now = self._monotonic()
        self._kept[place] = (secret, now + CACHE_SECONDS)
        self._kept.move_to_end(place)
        while len(self._kept) > CACHE_ENTRIES or next(iter(self._kept.values()))[1] <= now:
            self._kept.popitem(last=False)

    async def put(self, tenant: str, owner: str, name: str, secret: bytes) -> None:
        """Durable on return; raises Unavailable when it cannot be kept."""
        await asyncio.to_thread(self._vault.put_secret, tenant, owner, name, secret)

    async def destroy(self, tenant: str, owner: str, name: str) -> None:
        """Gone from memory at once, and from disk on return."""
        self._reading.pop((tenant, owner, name), None)
        self._kept.pop((tenant, owner, name), None)
        await asyncio.to_thread(self._vault.delete_secret, tenant, owner, name)

    async def destroy_leftover(self, tenant: str, owner: str, name: str) -> None:
        """Destroy it if it is there; the usual case, that it is not, writes nothing."""
        try:
            await self.get(tenant, owner, name)
        except Absent:
            return
        await self.destroy(tenant, owner, name)

    async def probe(self) -> None:
        """Raises when a key of the vault does not open."""
        await asyncio.to_thread(self._vault.user_key, PLATFORM_TENANT, SYSTEM_USER)
