"""What is kept of the vault in memory is kept by tenant, owner and name, so no cache entry is two people's."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit_chassis.vaultfile import VaultFile
from remit_contracts.errors import Absent
from remit_credential_broker.vault import Secrets

WHOSE = [("acme", "u-1"), ("acme", "u-2"), ("globex", "u-1"), ("acme", "system")]


async def test_one_owners_cached_secret_is_not_anothers(tmp_path: Path) -> None:
    vault = VaultFile(tmp_path / "vault.sqlite", bytes(32))
    secrets = Secrets(vault)
    for tenant, owner in WHOSE:
        await secrets.put(tenant, owner, "desk", f"secret of {tenant}/{owner}".encode())
    for _ in range(2):  # the second time from memory
        for tenant, owner in WHOSE:
            assert await secrets.get(tenant, owner, "desk") == f"secret of {tenant}/{owner}".encode()
    with pytest.raises(Absent):
        await secrets.get("globex", "u-2", "desk")
    vault.close()
