"""What the tool host process gives up at its start, since it holds a key and works on what users send."""

from __future__ import annotations

import ctypes
import resource
import sqlite3
import sys
from typing import Final

from remit_agent_runtime.toolhost.sql_tool import HEAP_LIMIT_BYTES

PR_SET_DUMPABLE: Final = 4
"""From linux/prctl.h."""


def confine(*, memory_limit_bytes: int) -> None:
    """No core dumps, no other process of this user reading its memory, bounded memory for it and for SQLite in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        # Elsewhere an address-space limit is refused or without effect.
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = memory_limit_bytes if hard == resource.RLIM_INFINITY else min(memory_limit_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(f"PRAGMA hard_heap_limit = {HEAP_LIMIT_BYTES}")  # of the whole process
    finally:
        connection.close()
