"""The vault of a stopped home, opened for reading: whose keys it has, a user's key, and why there is none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from remit_chassis.vaultfile import VaultFile, load_master_key, parse_master_key
from remit_contracts.errors import Absent, Tampered, Unavailable

MASTER_KEY_VARIABLE = "REMIT_BROKER_MASTER_KEY"


class _Places(BaseSettings):
    """Where the credential broker was told that they are; what it was not told lies in the home."""

    model_config = SettingsConfigDict(env_prefix="REMIT_BROKER_", extra="ignore")

    master_key: SecretStr | None = None
    master_key_file: Path | None = None
    vault_file: Path | None = None


class StoppedVault:
    """`gone`: there is no such file. `fault`: why no key can be had, in words; empty when keys can be had.

    A master key that is nowhere is not known to be lost: it may come from the environment, and then only whoever has
    it can tell what it opens.
    """

    def __init__(self, home: Path) -> None:
        places = _Places()
        self.path = places.vault_file or home / "vault" / "vault.sqlite"
        self.gone = False
        self.fault = ""
        self._file: VaultFile | None = None
        master = b""  # opens nothing, but which tenants have keys is told without one
        try:
            master = _master_key(places, home)
        except (OSError, ValueError) as fault:
            self.fault = str(fault)
        try:
            self.gone = not self.path.exists()
            self._file = VaultFile(self.path, master, read_only=True)
        except (OSError, sqlite3.Error) as fault:
            self.fault = f"the vault {self.path} is gone" if self.gone else f"{self.path}: {fault}"

    def tenants(self) -> list[str]:
        """Tenants that it has a key of, also without the master key; raises Tampered."""
        try:
            return self._file.tenants() if self._file else []
        except (sqlite3.Error, UnicodeDecodeError) as fault:
            raise _damaged(fault) from None

    def key(self, tenant: str, user: str) -> bytes | None:
        """A user's data key, None when it is destroyed; raises Absent when there is none, Tampered, Unavailable."""
        if self._file is None or self.fault:
            raise Unavailable(f"the vault cannot be opened: {self.fault}")
        try:
            return self._file.user_key(tenant, user)
        except Absent as absent:
            if absent.refusal_code == "absent.erased":
                return None
            raise
        except (sqlite3.Error, UnicodeDecodeError, TypeError, ValueError) as fault:
            raise _damaged(fault) from None

    def close(self) -> None:
        """Let the file go."""
        if self._file:
            self._file.close()


def _master_key(places: _Places, home: Path) -> bytes:
    """Raises ValueError, or OSError, with the way out."""
    if places.master_key is not None:
        try:
            return parse_master_key(places.master_key.get_secret_value())
        except ValueError as fault:
            raise ValueError(f"{MASTER_KEY_VARIABLE} holds {fault}") from None
    file = places.master_key_file or home / "secrets" / "master.key"
    try:
        return load_master_key(file)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the master key {file} is not there: set {MASTER_KEY_VARIABLE} if it comes from the environment, "
            "else restore the file from a backup"
        ) from None


def _damaged(fault: Exception) -> Tampered:
    return Tampered(f"the vault is damaged: {fault}", code="tampered.vault")
