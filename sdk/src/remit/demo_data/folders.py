"""Folders of a home: nobody but its owner may look into any of them."""

from __future__ import annotations

from pathlib import Path


def make_private(folder: Path) -> None:
    """Make the folder and those above it that are missing, each with mode 0700."""
    if not folder.exists():
        make_private(folder.parent)
        # `parents=True` would give the mode to the last one only, and the umask's to those above it.
        folder.mkdir(mode=0o700, exist_ok=True)
