"""A tenant that was made at the last moment: its witness was there before its first event."""

from __future__ import annotations

from pathlib import Path

from fixtures_platform import running_platform


def test_a_tenant_that_was_made_just_before_everything_was_killed_has_not_lost_its_ledger(tmp_path: Path) -> None:
    with running_platform(tmp_path) as started:
        created = started.cli("tenants", "create", "initech", "--output", "json")
        assert created.code == 0, created.err
        assert started.process
        started.process.kill()  # the parts die with it
        started.process.wait()
        checked = started.cli("audit", "check", "--offline", "--output", "json")
    assert (checked.code, checked.json["ok"]) == (0, True), checked.out
    initech = next(tenant for tenant in checked.json["tenants"] if tenant["tenant"] == "initech")
    assert initech["checked"]["ledger"] is True
    assert initech["entries"] + initech["pending"] >= 5, "the tenant and its four roles"
