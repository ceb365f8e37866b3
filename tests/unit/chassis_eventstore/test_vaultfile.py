"""The vault's file: keys under keys, nothing movable, and what was destroyed stays so."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from full_disk import full_disk

from remit_chassis.vaultfile import VaultFile, load_master_key, load_or_create_master_key
from remit_contracts.errors import Absent, MalformedIdentifier, Tampered, Unavailable

MASTER = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vault" / "vault.sqlite"


@pytest.fixture
def vault(path: Path) -> Iterator[VaultFile]:
    vault = VaultFile(path, MASTER)
    yield vault
    vault.close()


def every_byte(path: Path) -> bytes:
    """The file with its log."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()))


def execute(path: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    database = sqlite3.connect(path)
    with database:
        rows = database.execute(statement, values).fetchall()
    database.close()
    return rows


# -- users' keys ------------------------------------------------------------------------------------------------------


def test_a_users_key_is_made_once_and_outlives_the_process(path: Path, vault: VaultFile) -> None:
    key = vault.user_key("acme", "u-1")
    assert len(key) == 32
    assert vault.user_key("acme", "u-1") == key
    vault.close()
    again = VaultFile(path, MASTER)
    assert again.user_key("acme", "u-1") == key
    again.close()


def test_every_user_of_every_tenant_has_another_key(vault: VaultFile) -> None:
    scopes = [("acme", "u-1"), ("acme", "u-11"), ("globex", "u-1"), ("acme", "system")]
    assert len({vault.user_key(*scope) for scope in scopes}) == len(scopes)


def test_the_file_holds_no_key_in_the_clear(path: Path, vault: VaultFile) -> None:
    keys = [vault.user_key("acme", f"u-{number}") for number in range(5)]
    stored = every_byte(path)
    assert not any(key in stored for key in [*keys, MASTER])


def test_another_master_key_opens_nothing(path: Path, vault: VaultFile) -> None:
    vault.user_key("acme", "u-1")
    stranger = VaultFile(path, os.urandom(32))
    with pytest.raises(Tampered):
        stranger.user_key("acme", "u-1")
    stranger.close()


@pytest.mark.parametrize(
    "move",
    [
        "UPDATE user_keys SET sealed = (SELECT sealed FROM user_keys WHERE tenant = 'acme' AND user_id = 'u-2') "
        "WHERE tenant = 'acme' AND user_id = 'u-1'",
        "UPDATE tenant_keys SET sealed = (SELECT sealed FROM tenant_keys WHERE tenant = 'globex') "
        "WHERE tenant = 'acme'",
        "UPDATE user_keys SET sealed = X'00' WHERE user_id = 'u-1'",
    ],
)
def test_a_key_that_was_moved_or_altered_is_tampered(path: Path, vault: VaultFile, move: str) -> None:
    for scope in (("acme", "u-1"), ("acme", "u-2"), ("globex", "u-1")):
        vault.user_key(*scope)
    execute(path, move)
    with pytest.raises(Tampered):
        vault.user_key("acme", "u-1")


@pytest.mark.parametrize("user", ["", "U-1", "u-1/x", "u.1", "*"])
def test_no_key_is_made_for_what_is_no_user(vault: VaultFile, user: str) -> None:
    with pytest.raises(MalformedIdentifier):
        vault.user_key("acme", user)
    with pytest.raises(MalformedIdentifier):
        vault.destroy_user_key("acme", user)


# -- destroying -------------------------------------------------------------------------------------------------------


def test_a_destroyed_key_never_comes_back(path: Path, vault: VaultFile) -> None:
    kept = vault.user_key("acme", "u-2")
    vault.user_key("acme", "u-1")
    assert vault.destroy_user_key("acme", "u-1")
    assert not vault.destroy_user_key("acme", "u-1")
    vault.close()
    again = VaultFile(path, MASTER)
    with pytest.raises(Absent) as refusal:
        again.user_key("acme", "u-1")
    assert refusal.value.refusal_code == "absent.erased"
    assert again.user_key("acme", "u-2") == kept
    again.close()


def test_a_user_can_be_erased_before_having_a_key(vault: VaultFile) -> None:
    assert vault.destroy_user_key("acme", "u-1")
    with pytest.raises(Absent):
        vault.user_key("acme", "u-1")


def test_the_bytes_of_a_destroyed_key_and_its_secrets_are_overwritten(path: Path, vault: VaultFile) -> None:
    vault.user_key("acme", "u-1")
    vault.put_secret("acme", "u-1", "weather", b"token")
    rows = execute(path, "SELECT sealed FROM user_keys UNION ALL SELECT sealed FROM secrets")
    sealed = [row[0] for row in rows]
    assert len(sealed) == 2
    assert all(value in every_byte(path) for value in sealed)
    vault.destroy_user_key("acme", "u-1")
    assert not any(value in every_byte(path) for value in sealed)


def test_an_erased_user_can_keep_no_secret(vault: VaultFile) -> None:
    vault.put_secret("acme", "u-1", "weather", b"token")
    vault.destroy_user_key("acme", "u-1")
    with pytest.raises(Absent):
        vault.get_secret("acme", "u-1", "weather")
    with pytest.raises(Absent):
        vault.put_secret("acme", "u-1", "weather", b"token")


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_a_secret_is_kept_replaced_and_deleted(path: Path, vault: VaultFile) -> None:
    vault.put_secret("acme", "u-1", "weather", b"first-token")
    assert vault.get_secret("acme", "u-1", "weather") == b"first-token"
    vault.put_secret("acme", "u-1", "weather", b"second-token")
    assert vault.get_secret("acme", "u-1", "weather") == b"second-token"
    assert b"-token" not in every_byte(path)
    assert vault.delete_secret("acme", "u-1", "weather")
    assert not vault.delete_secret("acme", "u-1", "weather")
    with pytest.raises(Absent):
        vault.get_secret("acme", "u-1", "weather")


def test_a_secret_belongs_to_one_owner_of_one_tenant(vault: VaultFile) -> None:
    vault.put_secret("acme", "u-1", "weather", b"token")
    for scope in (("acme", "u-2"), ("globex", "u-1"), ("acme", "system")):
        with pytest.raises(Absent):
            vault.get_secret(*scope, "weather")


@pytest.mark.parametrize("column", ["owner = 'u-2'", "tenant = 'globex'", "name = 'other'"])
def test_a_secret_that_was_moved_is_tampered(path: Path, vault: VaultFile, column: str) -> None:
    vault.put_secret("acme", "u-1", "weather", b"token")
    for scope in (("acme", "u-2"), ("globex", "u-1")):
        vault.user_key(*scope)
    execute(path, f"UPDATE secrets SET {column}")
    (place,) = execute(path, "SELECT tenant, owner, name FROM secrets")
    with pytest.raises(Tampered):
        vault.get_secret(*map(str, place))


# -- a full disk ------------------------------------------------------------------------------------------------------


def log_bytes(path: Path) -> int:
    """Size of the vault's write-ahead log."""
    return path.with_name(f"{path.name}-wal").stat().st_size


def test_on_a_full_disk_whatever_writes_is_unavailable_in_words_and_what_was_kept_is_read(
    path: Path, vault: VaultFile
) -> None:
    key = vault.user_key("acme", "u-1")
    vault.put_secret("acme", "u-1", "weather", b"token")
    with full_disk(log_bytes(path)):
        for write in (
            lambda: vault.put_secret("acme", "u-1", "desk", b"another"),
            lambda: vault.user_key("acme", "u-2"),
            lambda: vault.user_key("globex", "u-1"),
            lambda: vault.delete_secret("acme", "u-1", "weather"),
            lambda: vault.destroy_user_key("acme", "u-1"),
        ):
            with pytest.raises(Unavailable, match=f"the vault {path} cannot be read or written now"):
                write()
        assert vault.get_secret("acme", "u-1", "weather") == b"token"
        assert vault.user_key("acme", "u-1") == key
    vault.put_secret("acme", "u-1", "desk", b"another")
    assert vault.get_secret("acme", "u-1", "desk") == b"another"


def test_a_vault_that_cannot_be_made_on_a_full_disk_is_unavailable_and_made_later(tmp_path: Path) -> None:
    with full_disk(1024), pytest.raises(Unavailable, match=r"vault\.sqlite cannot be read or written now"):
        VaultFile(tmp_path / "vault.sqlite", MASTER)
    made = VaultFile(tmp_path / "vault.sqlite", MASTER)
    assert made.tenants() == []
    made.close()


def test_a_master_key_that_a_full_disk_refuses_leaves_no_file_and_is_made_later(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    with full_disk(10), pytest.raises(OSError, match="File too large") as fault:
        load_or_create_master_key(path)
    assert fault.value.filename == str(path)
    assert not path.exists()
    assert load_or_create_master_key(path) == load_master_key(path)


# -- the file and the master key --------------------------------------------------------------------------------------


def test_the_file_is_the_owners_alone(path: Path, vault: VaultFile) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_vault_open_for_reading_makes_no_key(path: Path, vault: VaultFile) -> None:
    key = vault.user_key("acme", "u-1")
    vault.close()
    reader = VaultFile(path, MASTER, read_only=True)
    assert reader.user_key("acme", "u-1") == key
    for scope in (("acme", "u-2"), ("globex", "u-1")):
        with pytest.raises(Absent):
            reader.user_key(*scope)
    with pytest.raises(sqlite3.OperationalError):
        reader.destroy_user_key("acme", "u-1")
    reader.close()


def test_a_master_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    key = load_or_create_master_key(path)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create_master_key(path) == load_master_key(path) == key
    assert path.read_text().strip() == key.hex()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o610])
def test_a_master_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    key = load_or_create_master_key(path)
    path.chmod(mode)
    with pytest.raises(ValueError, match="chmod 600") as refusal:
        load_or_create_master_key(path)
    assert key.hex() not in str(refusal.value)


@pytest.mark.parametrize("content", ["", "zz", "00" * 31, "00" * 33, "secret-that-is-no-hex"])
def test_a_file_that_holds_no_key_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "master.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="no key") as refusal:
        load_or_create_master_key(path)
    assert not content or content not in str(refusal.value)
