"""What is said when not every connection of somebody who was shut out is cut off yet."""

from __future__ import annotations

from typing import Any

import pytest

from remit.cli.shutting_out import show


@pytest.mark.parametrize(
    ("left", "code", "said"),
    [
        (0, 0, ""),
        (2, 1, "acme is suspended, but live connections left: 2;"),
        (None, 1, "acme is suspended, but which connections are live is not known;"),
    ],
)
def test_done_is_told_from_done_with_connections_left(
    left: int | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer: dict[str, Any] = {"revision": 7, "connections_cut": 3, "connections_left": left}
    assert show(answer, "acme is suspended") == code
    shown = capsys.readouterr()
    assert " ".join(shown.err.split()).startswith(said)
    assert bool(shown.err) == bool(said)
    assert "connections_cut" in shown.out
