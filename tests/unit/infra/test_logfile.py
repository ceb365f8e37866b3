"""A part's log stays short while somebody writes it, and no disk keeps it from that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit_infra.logfile import LIMIT_BYTES, keep_short, last_line, old_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "part.log"


@pytest.fixture
def writer(log: Path) -> Iterator[int]:
    """A descriptor such as a part holds of its log."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


def test_a_log_that_is_not_there_or_holds_no_more_than_it_may_is_left_alone(log: Path) -> None:
    keep_short(log)
    log.write_bytes(b"x" * LIMIT_BYTES)
    keep_short(log)
    assert log.stat().st_size == LIMIT_BYTES
    assert not old_log(log).exists()


def test_whoever_writes_goes_on_in_the_emptied_log_and_its_end_is_kept(log: Path, writer: int) -> None:
    for text in (b"first", b"second"):
        os.write(writer, b"-" * LIMIT_BYTES + text)
        keep_short(log)
        assert log.stat().st_size == 0
        assert old_log(log).stat().st_size == LIMIT_BYTES
        assert old_log(log).read_bytes().endswith(b"-" + text)
    os.write(writer, b"after\n")
    assert log.read_bytes() == b"after\n"
    assert last_line(log) == "after"


def test_a_log_that_cannot_be_copied_is_emptied_all_the_same(log: Path, writer: int) -> None:
    old_log(log).mkdir()
    os.write(writer, b"-" * (LIMIT_BYTES + 1))
    keep_short(log)
    assert log.stat().st_size == 0
