"""The check of a stopped home without what opens its record: a check that could not look never says that all is well."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from remit.cli.__main__ import invoke
from remit_audit.offline import audit_check

EVENTS, EFFECTS = 2 + 12 * 6, 2 * 12
"""Of each of the two tenants."""


def checked(home: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, Any]]]:
    """Exit code of the command, and what it reports of acme and globex."""
    code = invoke(["audit", "check", "--offline", "--home", str(home), "--output", "json"])
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] == (code == 0)
    return code, report["tenants"]


def faults(tenant: dict[str, Any]) -> list[tuple[str, str]]:
    return [(fault["copy"], fault["code"]) for fault in tenant["faults"]]


def test_a_vault_that_is_gone_is_a_fault_of_every_tenant_with_events(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(home / "vault")
    code, tenants = checked(home, capsys)
    assert code == 6
    assert [faults(tenant) for tenant in tenants] == [[("vault", "file.damaged")]] * 2
    reason = tenants[0]["faults"][0]["reason"]
    assert "vault.sqlite is gone: " in reason
    assert f"{EVENTS} events cannot be decrypted" in reason
    assert f"{EFFECTS} effects were not compared with their permits" in reason
    assert tenants[0]["checked"]["permits"] is False


def test_a_vault_that_is_gone_is_a_fault_also_where_only_stores_are_left(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "vault" / "vault.sqlite").unlink()
    for path in home.glob("ledger/*"):
        path.unlink()
    code, tenants = checked(home, capsys)
    assert code == 6
    assert all(("vault", "file.damaged") in faults(tenant) for tenant in tenants)


def test_a_vault_without_a_tenants_keys_is_a_fault_of_that_tenant(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(home / "vault" / "vault.sqlite") as db:
        db.execute("DELETE FROM tenant_keys WHERE tenant = 'acme'")
    db.close()
    code, (acme, globex) = checked(home, capsys)
    assert code == 6
    assert ("vault", "key.missing") in faults(acme)
    assert faults(globex) == []


def test_without_the_master_key_the_check_says_what_it_could_not_look_at_and_exits_5(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "secrets" / "master.key").unlink()
    code, tenants = checked(home, capsys)
    assert code == 5
    for tenant in tenants:
        assert tenant["faults"] == []
        (unchecked,) = tenant["unchecked"]
        assert unchecked.startswith(
            f"{EVENTS} events cannot be decrypted, and {EFFECTS} effects were not compared with their permits: "
        )
        assert "set REMIT_BROKER_MASTER_KEY if it comes from the environment, else restore the file" in unchecked
        assert tenant["checked"]["permits"] is False
    assert invoke(["audit", "check", "--offline", "--home", str(home), "--output", "table"]) == 5
    shown = " ".join(capsys.readouterr().out.split())
    assert f"acme: not wholly checked, {EVENTS} entries" in shown
    assert "not checked: 74 events" in shown


@pytest.mark.parametrize("text", ["", "00", "zz" * 32])
def test_a_master_key_that_is_none_leaves_the_check_undone(
    home: Path, capsys: pytest.CaptureFixture[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = home / "secrets" / "master.key"
    whole = key.read_text()
    key.write_text(text)
    assert checked(home, capsys)[0] == 5
    key.write_text(whole)
    key.chmod(0o644)
    assert checked(home, capsys)[0] == 5
    monkeypatch.setenv("REMIT_BROKER_MASTER_KEY", text)  # it goes before the file, as at the broker
    key.chmod(0o600)
    code, tenants = checked(home, capsys)
    assert code == 5
    assert "REMIT_BROKER_MASTER_KEY holds no key" in tenants[0]["unchecked"][0]
    assert not text or text not in tenants[0]["unchecked"][0].partition("REMIT_BROKER")[2]


def test_a_master_key_from_the_environment_opens_the_vault(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = home / "secrets" / "master.key"
    monkeypatch.setenv("REMIT_BROKER_MASTER_KEY", key.read_text())
    key.unlink()
    code, tenants = checked(home, capsys)
    assert code == 0
    assert [tenant["effects_checked"] for tenant in tenants] == [EFFECTS] * 2
    monkeypatch.setenv("REMIT_BROKER_MASTER_KEY", "11" * 32)
    code, tenants = checked(home, capsys)
    assert code == 6
    assert {found for tenant in tenants for found in faults(tenant)} == {("vault", "key.unreadable")}


def test_key_and_vault_are_found_where_the_broker_was_told_that_they_are(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, place, variable in (
        ("secrets/master.key", "mounted.key", "REMIT_BROKER_MASTER_KEY_FILE"),
        ("vault/vault.sqlite", "elsewhere.sqlite", "REMIT_BROKER_VAULT_FILE"),
    ):
        (home / name).rename(home / place)
        assert checked(home, capsys)[0] != 0
        monkeypatch.setenv(variable, str(home / place))
        assert checked(home, capsys)[0] == 0


def test_a_tenant_of_whom_every_file_is_gone_is_missed_without_the_master_key_too(home: Path) -> None:
    (home / "secrets" / "master.key").unlink()
    for path in [*home.glob("ledger/acme.*"), *home.glob("store/*/acme.*")]:
        path.unlink()
    acme = audit_check(home)["tenants"][0]
    assert (acme["tenant"], faults(acme)) == ("acme", [("ledger", "file.damaged")])
