"""Files for their owner alone (0600), there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_OWNER_ALONE: Final = 0o077


@contextmanager
def for_owner_alone() -> Iterator[None]:
    """Whatever this process makes meanwhile, and its children, nobody else may read: for programs that set no mode."""
    before = os.umask(_OWNER_ALONE)
    try:
        yield
    finally:
        os.umask(before)


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` in the place of whatever `path` holds, synced to disk.

    Raises OSError, which names `path`, and leaves the old file.
    """
    temporary = _write_beside(path, content)
    try:
        os.replace(temporary, path)
    except OSError:
        temporary.unlink()
        raise
    _sync_directory(path.parent)


def write_once(path: Path, content: bytes) -> bool:
    """Make `path` with `content`, synced to disk, unless it exists: then it is left alone and the answer is False.

    A rename overwrites, and a hard link, which does not, is not to be had on every file system: so whoever makes a file
    in this way holds its directory's lock.
    """
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if path.exists():
            return False
        write_atomically(path, content)
    finally:
        os.close(directory)  # and so the lock is let go
    return True


def _write_beside(path: Path, content: bytes) -> Path:
    # Made with mode 0600, whatever the umask.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as fault:
        os.unlink(name)
        # What fails on a descriptor names no file, and a full disk is found by where it is full.
        raise OSError(fault.errno, fault.strerror, str(path)) from fault
    return Path(name)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
