"""Offline commands on a home of a newer version, or of which a part is gone: refused, or missed by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from remit.cli.__main__ import invoke
from remit.cli.context import current
from remit.cli.offline import offline
from remit_infra.home import HomeRefused

OFFLINE = [
    ["audit", "check", "--offline"],
    ["trail", "show", "acme/analyst", "--offline"],
    ["trail", "verify", "acme/analyst", "--offline"],
    ["trail", "export", "acme/analyst", "--offline", "--to", "/dev/null"],
]


def told(capsys: pytest.CaptureFixture[str], home: Path, arguments: list[str]) -> tuple[int, str]:
    """Exit code, and what is written."""
    code = invoke([*arguments, "--home", str(home), "--output", "json"])
    written = capsys.readouterr()
    return code, written.out + written.err


@pytest.mark.parametrize("arguments", OFFLINE)
def test_a_home_of_a_newer_version_is_refused_by_every_offline_command(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert told(capsys, home, arguments)[0] == 0
    (home / "home.json").write_text('{"version": 99}')
    code, said = told(capsys, home, arguments)
    assert code == 1
    assert "made by a newer Remit (home version 99" in said


def test_tools_of_a_newer_home_are_not_read_for_a_connections_hosts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current, "home", home)
    assert offline("tool-hosts", tenant="acme", connection="desk") == {"hosts": []}
    (home / "home.json").write_text('{"version": 99}')
    with pytest.raises(HomeRefused, match="made by a newer Remit"):
        offline("tool-hosts", tenant="acme", connection="desk")


@pytest.mark.parametrize("arguments", OFFLINE)
def test_a_directory_that_is_no_home_is_refused_with_the_way_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str]
) -> None:
    code, said = told(capsys, tmp_path, arguments)
    assert code == 1
    assert "is no Remit home: `remit up --home" in said


def test_a_home_without_its_ledgers_is_a_home_and_misses_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(home / "ledger")
    code, said = told(capsys, home, OFFLINE[0])
    assert code == 6
    missed = f"the directory {home}/ledger is gone: restore it from a backup"
    for tenant in json.loads(said)["tenants"]:
        assert missed in [fault["reason"] for fault in tenant["faults"]], tenant["tenant"]
    for store in home.glob("store/*/*"):
        store.unlink()
    shutil.rmtree(home / "vault")
    code, said = told(capsys, home, OFFLINE[0])
    assert code == 6  # also where nothing is left that tells of a tenant
    assert [fault["reason"] for tenant in json.loads(said)["tenants"] for fault in tenant["faults"]] == [missed]


@pytest.mark.parametrize("arguments", OFFLINE[1:])
@pytest.mark.parametrize("gone", ["ledger", "ledger/acme.sqlite"])
def test_a_trail_whose_ledger_is_gone_was_tampered_with_and_is_not_absent(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], gone: str
) -> None:
    path = home / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, said = told(capsys, home, arguments)
    assert code == 6
    assert f"{path} is gone: restore it from a backup" in said
    assert told(capsys, home, ["trail", "show", "initech/analyst", "--offline"])[0] == (6 if gone == "ledger" else 4)


@pytest.mark.parametrize("arguments", OFFLINE)
@pytest.mark.parametrize(
    ("gone", "named"),
    [("public", "ledger.pub"), ("public/ledger.pub", "ledger.pub"), ("public/permit.pub", "permit.pub")],
)
def test_public_keys_that_are_gone_are_a_fault_in_words(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], gone: str, named: str
) -> None:
    path = home / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, said = told(capsys, home, arguments)
    assert code == 6
    assert f"{home}/public/{named} is missing: restore it from a backup" in said
