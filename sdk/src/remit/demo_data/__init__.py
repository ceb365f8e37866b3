"""The demo's tenants on disk: their real data, tools, agents and documents, written into a home directory.

`ORIGIN.md` says where the data comes from. `install` may be run again: sources of this version stay as they are, and so
do tools and agents that exist, since somebody may have edited them.
"""

from __future__ import annotations

import os
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from remit.demo_data.folders import make_private
from remit.demo_data.sources import SOURCES, load_source

TENANTS: Final = ("acme", "globex")
DESK_ADDRESS: Final = "127.0.0.1:8765"
"""Where `tools/acme.yaml` looks for the weather desk until `point_weather_desk` names its real place."""
MAX_DOCUMENT_BYTES: Final = 1024 * 1024


def install(home: Path, *, documents: Path | None = None) -> None:
    """Write sources, tools, agents and documents of the demo tenants into `home`.

    `documents` is a folder whose Markdown becomes the tenants' documents; by default the repository's own, and in an
    installation without one what this package says of its data.
    """
    for tenant in TENANTS:
        for source in SOURCES[tenant]:
            load_source(home / "sources" / tenant / f"{source.name}.sqlite", tenant, source)
        _copy_tree(_packaged("agents", tenant), home / "agents" / tenant)
        _write_new(home / "tools" / f"{tenant}.yaml", _packaged("tools", f"{tenant}.yaml").read_bytes())
        for name, content in _documents(documents).items():
            _write(home / "documents" / tenant / name, content)


def point_weather_desk(home: Path, address: str) -> None:
    """Say that the weather desk listens on `address` (HOST:PORT of loopback); running tool hosts notice."""
    path = home / "tools" / "acme.yaml"
    lines = path.read_text().splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.strip().startswith("url: http://") and line.rstrip().endswith("/conditions"):
            lines[number] = f"{line[: line.index('http://')]}http://{address}/conditions\n"
    _write(path, "".join(lines).encode())


def _packaged(*parts: str) -> Traversable:
    return files(__name__).joinpath(*parts)


def _documents(folder: Path | None) -> dict[str, bytes]:
    """Relative name -> content of the Markdown files at the top of the folder and below its `docs`."""
    found = {"demo-data.md": _packaged("ORIGIN.md").read_bytes()}
    root = folder or _repository()
    if root is None:
        return found
    for path in sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("services/*/README.md")]):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_DOCUMENT_BYTES:
            found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found


def _repository() -> Path | None:
    """The checkout that this package runs from, if it does."""
    root = Path(__file__).resolve().parents[4]
    return root if (root / "contracts").is_dir() and (root / "docs").is_dir() else None


def _copy_tree(source: Traversable, target: Path) -> None:
    for entry in source.iterdir():
        if entry.name.endswith(".yaml"):
            _write_new(target / entry.name, entry.read_bytes())


def _write_new(path: Path, content: bytes) -> None:
    if not path.exists():
        _write(path, content)


def _write(path: Path, content: bytes) -> None:
    """Readers see the old file or the new one, never half of one."""
    if path.exists() and path.read_bytes() == content:
        return
    make_private(path.parent)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.chmod(0o600)
    unfinished.replace(path)
