"""What SQLite says when the machine is at fault, and not the file: whoever asks again may fare better."""

from __future__ import annotations

import sqlite3
from typing import Final

BUSY_OR_BROKEN_DISK: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
)
"""A lock that another holds; a disk that is full or fails."""


def primary_code(fault: BaseException) -> int:
    """SQLite's primary result code; 0 for a fault that is none of SQLite's own."""
    return getattr(fault, "sqlite_errorcode", 0) & 0xFF
