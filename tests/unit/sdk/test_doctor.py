"""`remit doctor` where there is no home to speak of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remit.cli.__main__ import invoke
from remit_infra.home import Home
from remit_infra.lock import holding


@pytest.mark.parametrize(("below", "check"), [("", "home"), ("home", "disk")])
def test_a_file_where_a_home_belongs_is_a_finding_and_the_others_are_told_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], below: str, check: str
) -> None:
    (tmp_path / "file").touch()
    assert invoke(["doctor", "--home", str(tmp_path / "file" / below), "--output", "json"]) == 1
    findings = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["python"]["ok"]
    assert findings[check]["ok"] is False
    assert "is no directory" in findings[check]["found"]


def test_endpoints_of_a_platform_that_was_killed_are_a_finding(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home = Home.create(tmp_path / "home")
    (home.path / "endpoints.json").write_text(json.dumps({"nats": "nats://127.0.0.1:1", "pids": {}}))
    asked = ["doctor", "--home", str(home.path), "--output", "json"]
    assert invoke(asked) == 1
    said = capfd.readouterr()
    assert said.err == ""
    findings = {finding["check"]: finding for finding in json.loads(said.out)}
    assert "left of a platform that was killed" in findings["platform"]["found"]
    assert "remit down" in findings["platform"]["way_out"]
    with holding(home):
        assert invoke(asked) == 0
    capfd.readouterr()
    assert invoke(["down", "--home", str(home.path)]) == 0
    assert invoke(asked) == 0


@pytest.mark.parametrize(
    "arguments", [["status"], ["whoami", "--as", "acme/analyst"], ["trail", "show", "acme/analyst"], ["roles", "tree"]]
)
def test_a_bus_that_is_gone_is_told_in_one_refusal_without_a_traceback(
    tmp_path: Path, arguments: list[str], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    home = Home.create(tmp_path / "home")
    (home.path / "endpoints.json").write_text(json.dumps({"nats": "nats://127.0.0.1:1", "pids": {}}))
    assert invoke([*arguments, "--home", str(home.path)]) == 5
    assert capfd.readouterr().err.startswith("unavailable: no bus at nats://127.0.0.1:1")
    assert caplog.records == []
