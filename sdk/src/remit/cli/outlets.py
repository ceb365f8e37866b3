"""Standard output and standard error whose reader may leave early, as in `remit trail verify acme/analyst | head -1`.

A command must still come to its end and give its own exit code: one that finds a record tampered with exits 6, whoever
reads how much of what it says.
"""

from __future__ import annotations

import io
import sys
from typing import TextIO


class _Outlet(io.FileIO):
    """A file descriptor that takes everything, and drops it once its reader has gone."""

    def write(self, data: object, /) -> int:
        """How many bytes were taken."""
        try:
            return super().write(data)  # type: ignore[arg-type]  # whatever the buffer above hands on
        except BrokenPipeError:
            return memoryview(data).nbytes  # type: ignore[arg-type]


def outlive_readers() -> None:
    """Put outlets in the places of `sys.stdout` and `sys.stderr`, for the life of this process."""
    sys.stdout, sys.stderr = _outlet(sys.stdout), _outlet(sys.stderr)


def _outlet(stream: TextIO) -> TextIO:
    if stream is None or not isinstance(stream, io.TextIOWrapper):  # closed at the start, or somebody's own
        return stream
    stream.flush()
    raw = _Outlet(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or raw.isatty(),
    )
