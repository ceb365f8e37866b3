"""The file that a part's output goes to: appended to, kept short while it is written, asked for its last line."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

LIMIT_BYTES: Final = 16 * 1024 * 1024
"""What a log may hold before it begins anew, and what is kept of the one before."""
_LAST_BYTES: Final = 2048


def redirect_output(log: Path) -> None:
    """Have this process, and what it becomes by exec, read nothing and write to the end of `log`."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.close(written)


def keep_short(log: Path) -> None:
    """Empty a log over LIMIT_BYTES, after copying its last LIMIT_BYTES to `.log.old` in place of what was there.

    Not renamed, because whoever writes holds the file open; by O_APPEND they go on at its new end. What they write
    during the copy is lost. Raises nothing: a disk that takes no copy is one more reason to empty the log.
    """
    with suppress(OSError):
        if log.stat().st_size <= LIMIT_BYTES:
            return
        with log.open("r+b") as written:
            with suppress(OSError):
                written.seek(-LIMIT_BYTES, os.SEEK_END)
                old_log(log).write_bytes(written.read(LIMIT_BYTES))
            os.truncate(written.fileno(), 0)


def old_log(log: Path) -> Path:
    """Where `keep_short` puts what was in `log`."""
    return log.with_suffix(".log.old")


def last_line(log: Path) -> str:
    """The last line that is not empty, 300 characters of it at most; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
