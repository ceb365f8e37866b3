"""`remit doctor` where there is no home to speak of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remit.cli.__main__ import invoke


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
