"""The master key and the vault at start, and secrets in memory for no longer than they are needed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from remit_chassis.vaultfile import VaultFile
from remit_contracts.errors import Absent
from remit_credential_broker.settings import BrokerSettings
from remit_credential_broker.vault import CACHE_SECONDS, Secrets, VaultRefused, master_key, open_vault

KEY = bytes(range(32))


def refused(given: SecretStr | None, file: Path, vault: Path) -> str:
    with pytest.raises(VaultRefused) as refusal:
        master_key(given, file, vault)
    assert refusal.value.refusal_code == "vault.key_unusable"
    return refusal.value.reason


def test_a_key_is_made_for_the_first_start_and_read_ever_after(tmp_path: Path) -> None:
    file, vault = tmp_path / "master.key", tmp_path / "vault.sqlite"
    key = master_key(None, file, vault)
    assert file.stat().st_mode & 0o777 == 0o600
    open_vault(vault, key).close()
    assert master_key(None, file, vault) == key


def test_a_key_from_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMIT_BROKER_MASTER_KEY", KEY.hex())
    settings = BrokerSettings(home=tmp_path)
    assert KEY.hex() not in repr(settings)
    assert master_key(settings.master_key, settings.master_key_file, settings.vault_file) == KEY
    assert not settings.master_key_file.exists()


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, KEY.hex() + "00"])
def test_a_text_that_is_no_key_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    reason = refused(SecretStr(text), tmp_path / "k", tmp_path / "v")
    assert "64 hex digits" in reason
    assert not text or text not in reason


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "master.key"
    file.write_text(KEY.hex())
    file.chmod(mode)
    assert f"chmod 600 {file}" in refused(None, file, tmp_path / "v")


def test_a_vault_without_its_key_is_refused_and_no_key_is_made(tmp_path: Path) -> None:
    file, vault = tmp_path / "master.key", tmp_path / "vault.sqlite"
    open_vault(vault, KEY).close()
    assert "restore the key" in refused(None, file, vault)
    assert not file.exists()


def test_another_key_than_the_vaults_is_refused_clearly(tmp_path: Path) -> None:
    vault = tmp_path / "vault.sqlite"
    open_vault(vault, KEY).close()
    with pytest.raises(VaultRefused, match="does not open with this master key") as refusal:
        open_vault(vault, bytes(32))
    assert refusal.value.refusal_code == "vault.wrong_key"
    again = open_vault(vault, KEY)
    assert len(again.user_key("acme", "u-1")) == 32
    again.close()


class Counted:
    """A vault that counts how often it is read, and can be held up."""

    def __init__(self, vault: VaultFile) -> None:
        self.vault, self.reads = vault, 0

    def get_secret(self, *place: str) -> bytes:
        self.reads += 1
        return self.vault.get_secret(*place)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vault, name)


async def test_a_secret_is_kept_for_a_minute_and_not_longer(tmp_path: Path) -> None:
    now = 0.0
    vault = Counted(open_vault(tmp_path / "vault.sqlite", KEY))
    secrets = Secrets(vault, monotonic=lambda: now)  # type: ignore[arg-type]
    await secrets.put("acme", "u-1", "a", b"one")
    await secrets.put("acme", "u-1", "b", b"two")
    for _ in range(3):
        assert await secrets.get("acme", "u-1", "a") == b"one"
    assert vault.reads == 1
    now = CACHE_SECONDS
    assert await secrets.get("acme", "u-1", "b") == b"two"
    assert [place[2] for place in secrets._kept] == ["b"]
    vault.close()


async def test_a_destroyed_secret_is_gone_from_memory_also_when_it_was_just_being_read(tmp_path: Path) -> None:
    vault = Counted(open_vault(tmp_path / "vault.sqlite", KEY))
    secrets = Secrets(vault)  # type: ignore[arg-type]
    await secrets.put("acme", "u-1", "a", b"one")
    reading = asyncio.create_task(secrets.get("acme", "u-1", "a"))
    while not vault.reads:
        await asyncio.sleep(0)
    await secrets.destroy("acme", "u-1", "a")
    assert await reading == b"one"
    assert not secrets._kept
    with pytest.raises(Absent):
        await secrets.get("acme", "u-1", "a")
    vault.close()
