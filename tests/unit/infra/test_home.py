"""The home directory: made whole, opened with suspicion, never made twice."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from full_disk import full_disk
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from remit_chassis.nkeys import SignKey
from remit_contracts.subjects import SERVICES
from remit_infra.files import write_atomically, write_once
from remit_infra.home import Home, HomeRefused
from remit_infra.secrets import SECRETS, provision

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def content(home: Home) -> dict[str, bytes]:
    return {name: (home.secrets / name).read_bytes() for name in SECRETS}


def test_a_home_and_every_file_in_it_are_closed_to_others(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home", at=NOW)
    assert json.loads(home.marker.read_text()) == {"version": 1, "created_at": "2030-01-01T00:00:00+00:00"}
    for entry in home.path.rglob("*"):
        assert stat.S_IMODE(entry.stat().st_mode) == (0o700 if entry.is_dir() else 0o600), entry
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_every_public_half_belongs_to_its_secret(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home")

    def secret(name: str) -> bytes:
        return bytes.fromhex((home.secrets / f"{name}.key").read_text())

    def public(name: str) -> bytes:
        return bytes.fromhex((home.public / f"{name}.pub").read_text())

    for name in ("issuer", "permit", "ledger"):
        assert public(name) == bytes(SigningKey(secret(name)).verify_key)
    for name in ("tool-host", "broker", *(f"box/{service}" for service in SERVICES)):
        assert public(name) == bytes(PrivateKey(secret(name)).public_key)
    for user in (*SERVICES, "auth-callout", "installer", "sys"):
        assert home.public_nkeys()[user] == SignKey.read(home.nkey_file(user)).public


def test_no_two_secrets_are_the_same(tmp_path: Path) -> None:
    assert len(set(content(Home.create(tmp_path / "home")).values())) == len(SECRETS)


def test_making_a_home_again_changes_no_secret(tmp_path: Path) -> None:
    before = content(Home.create(tmp_path / "home"))
    home = Home.create(tmp_path / "home")
    assert provision(home.secrets, home.public) == []
    assert content(home) == before


def test_an_interrupted_making_is_finished_and_keeps_what_was_made(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home")
    home.marker.unlink()
    (home.secrets / "permit.key").unlink()
    before = (home.secrets / "master.key").read_bytes()
    Home.create(home.path)
    assert (home.secrets / "master.key").read_bytes() == before
    assert (home.secrets / "permit.key").exists()


def test_a_lost_secret_is_never_replaced_in_silence(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home")
    (home.secrets / "master.key").unlink()
    with pytest.raises(HomeRefused, match=r"master\.key is missing"):
        Home.create(home.path)
    assert not (home.secrets / "master.key").exists()


def test_a_home_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home")
    home.marker.write_text('{"version": 2}')
    with pytest.raises(HomeRefused, match=r"newer Remit .* upgrade") as refused:
        Home.open(home.path)
    assert refused.value.exit_code == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": "x"}', '{"version": 1.5}', '{"version": true}', "\x00"])
def test_a_damaged_marker_is_refused(tmp_path: Path, text: str) -> None:
    home = Home.create(tmp_path / "home")
    home.marker.write_text(text)
    with pytest.raises(HomeRefused, match="damaged"):
        Home.open(home.path)


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    with pytest.raises(HomeRefused, match="letters"):
        Home.create(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["letters"]
    with pytest.raises(HomeRefused, match="is no Remit home"):
        Home.open(tmp_path)


def test_a_home_that_a_full_disk_refuses_names_the_file_and_is_finished_later(tmp_path: Path) -> None:
    with full_disk(0), pytest.raises(OSError, match="File too large") as fault:
        Home.create(tmp_path / "home")
    assert str(fault.value.filename).startswith(f"{tmp_path}/home/secrets/")
    assert Home.open(Home.create(tmp_path / "home").path).marker.exists()


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for use in (Home.create, Home.open, Home.open_to_read):
        with pytest.raises(HomeRefused, match="is no directory"):
            use(tmp_path / "file")


def test_a_home_is_read_without_the_secrets_that_running_it_needs(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home")
    (home.secrets / "master.key").unlink()
    assert Home.open_to_read(home.path) == home
    with pytest.raises(HomeRefused, match=r"master\.key is missing"):
        Home.open(home.path)


def test_what_is_no_directory_where_secrets_belong_is_told_as_what_is_missing(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home")
    home.secrets.rename(tmp_path / "elsewhere")
    home.secrets.touch()
    with pytest.raises(HomeRefused, match="is missing"):
        Home.open(home.path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    home = Home.create(tmp_path / "home")
    (home.secrets / "permit.key").chmod(mode)
    with pytest.raises(HomeRefused, match="chmod 600"):
        Home.open(home.path)


def test_a_secret_that_is_a_link_is_refused(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home")
    kept = (home.secrets / "permit.key").rename(tmp_path / "elsewhere")
    (home.secrets / "permit.key").symlink_to(kept)
    with pytest.raises(HomeRefused, match="no plain file"):
        Home.open(home.path)


def test_tenants_are_known_from_the_stores_of_a_stopped_home(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home")
    for name in ("auth/acme", "policy/acme", "audit/globex", "auth/Not-A-Label"):
        store = home.path / "store" / f"{name}.sqlite"
        store.parent.mkdir(exist_ok=True)
        store.touch()
    assert home.tenants() == ["acme", "globex", "platform"]


def test_endpoints_are_there_whole_or_not_at_all(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home")
    assert home.endpoints() is None
    home.write_endpoints({"nats": "nats://127.0.0.1:1", "pids": {}})
    assert home.endpoints() == {"nats": "nats://127.0.0.1:1", "pids": {}}
    assert [entry.name for entry in home.path.iterdir() if entry.name.startswith(".")] == []
    home.remove_endpoints()
    home.remove_endpoints()
    assert home.endpoints() is None


def test_a_file_that_exists_is_not_written_once_more(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert write_once(path, b"first") is True
    assert write_once(path, b"second") is False
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_that_make_a_file_at_once_one_does_also_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    path = tmp_path / "key"
    contents = [b"%d" % number for number in range(16)]
    with ThreadPoolExecutor(16) as makers:
        made = list(makers.map(lambda content: write_once(path, content), contents))
    assert made.count(True) == 1
    assert path.read_bytes() == contents[made.index(True)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as fault:
        write_atomically(path, b"new")
    assert fault.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
