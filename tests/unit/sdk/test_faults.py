"""Contradictions on the terminal: one a line, in words, and inert."""

from __future__ import annotations

import pytest

from remit.cli.faults import draw_faults


def test_a_contradiction_is_one_line_of_words(capsys: pytest.CaptureFixture[str]) -> None:
    draw_faults(
        [
            {"copy": "store", "service": "auth", "notification_id": 7, "code": "tampered.hash", "reason": "a \u202e b"},
            {"copy": "ledger", "service": "", "notification_id": None, "code": "tampered.root", "reason": "another"},
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        "  store auth #7 tampered.hash: a \\u202e b",
        "  ledger tampered.root: another",
    ]
