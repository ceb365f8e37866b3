"""Random nonces, drawn from the operating system many at a time.

Each call of `os.urandom` lets the GIL go, and where a thread waits for it, as group commit's does, it must be got back.
"""

from __future__ import annotations

import os
from typing import Final

DRAWN_AT_ONCE: Final = 256


class Nonces:
    """Nonces of `size_bytes`. No two calls give the same bytes, whatever threads call, nor do two processes."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._left: list[bytes] = []
        os.register_at_fork(after_in_child=self._left.clear)

    def next(self) -> bytes:
        """One that was not given before."""
        while True:
            try:
                return self._left.pop()  # atomic: two threads never get the same one
            except IndexError:
                drawn, size = os.urandom(self._size_bytes * DRAWN_AT_ONCE), self._size_bytes
                self._left.extend(drawn[at : at + size] for at in range(0, len(drawn), size))
