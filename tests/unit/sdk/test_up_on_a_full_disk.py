"""`remit up` where the disk takes no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from full_disk import full_disk

from remit.cli.__main__ import invoke


@pytest.mark.parametrize(
    ("limit_bytes", "arguments", "named"), [(0, [], "home/secrets/"), (20_000, ["--demo"], "home")]
)
def test_what_cannot_be_written_is_named_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limit_bytes: int, arguments: list[str], named: str
) -> None:
    with full_disk(limit_bytes):
        code = invoke(["up", *arguments, "--home", str(tmp_path / "home"), "--output", "json"])
    said = capsys.readouterr()
    assert code == 1
    assert f"{tmp_path}/{named}" in said.out + said.err
