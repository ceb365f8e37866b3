"""A copy of the sources with an interpreter of its own, in which one guard at a time is removed and its tests are run.

The copy's interpreter is a virtual environment whose only path file names the copy's source folders and then the
installed packages, so child processes import the copy as well, also those that are started with `-I` (the tool host,
the engines), which PYTHONPATH would not reach. The checkout itself is never touched.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
COPIED = ("contracts", "chassis", "infra", "services", "sdk", "bench", "tests", "pyproject.toml", "docker-compose.yml")
SECONDS_A_TEST = 60
"""A test that waits for what the guard would have refused is red as well, and is not waited for longer."""
_FAILED = re.compile(r"^FAILED (\S+)", re.MULTILINE)


class Outcome(NamedTuple):
    """Of one pytest: `code` is its exit code, `failed` the node ids without their parameters, `output` all it said."""

    code: int
    failed: frozenset[str]
    output: str


class Copy:
    """The copy in `folder`; made at once, which takes seconds."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.root.mkdir(parents=True)
        for name in COPIED:
            source = CHECKOUT / name
            if source.is_dir():
                shutil.copytree(source, self.root / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            elif source.exists():
                shutil.copy2(source, self.root / name)
        sources = sorted([*self.root.glob("*/src"), *self.root.glob("services/*/src")])
        # Validated by content: a mutation within the same second and of the same length would pass for what was there.
        for place in sources:
            compileall.compile_dir(place, quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
        self._environment = folder / "environment"
        self._python = self._make_environment(sources)

    def _make_environment(self, sources: Sequence[Path]) -> Path:
        venv.EnvBuilder(symlinks=True).create(self._environment)
        installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        paths = sysconfig.get_paths(vars={"base": str(self._environment), "platbase": str(self._environment)})
        # Path files of the installed packages are not read again, so the checkout stays out of sight.
        Path(paths["purelib"], "copy.pth").write_text("\n".join([*map(str, sources), *sorted(installed)]) + "\n")
        scripts = Path(sysconfig.get_path("scripts"))
        ours = Path(paths["scripts"])
        for program in ("nats-server", "nx-27017"):  # looked for beside the interpreter
            if (scripts / program).exists() and not (ours / program).exists():
                (ours / program).symlink_to(scripts / program)
        return ours / "python"

    def imported_from(self, module: str, *flags: str) -> Path:
        """Where the copy's interpreter finds a module."""
        asked = [str(self._python), *flags, "-c", f"import {module}; print({module}.__file__)"]
        done = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=self.root)
        return Path(done.stdout.strip())

    def run(self, tests: Sequence[str]) -> Outcome:
        """Run these node ids in the copy."""
        done = subprocess.run(  # noqa: PLW1510 (its exit code is the answer)
            [
                *(str(self._python), "-m", "pytest", "-q", "--tb=line", "-rf", "--no-header"),
                *("-p", "no:cacheprovider", "--timeout", str(SECONDS_A_TEST)),
                *("-p", "no:unraisableexception", *tests),  # what a red test leaves open must not fail the next one
            ],
            capture_output=True,
            text=True,
            cwd=self.root,
            env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(self._environment / "hypothesis")},
        )
        failed = frozenset(node.partition("[")[0] for node in _FAILED.findall(done.stdout))
        return Outcome(done.returncode, failed, done.stdout + done.stderr)

    @contextmanager
    def mutated(self, file: str, old: str, new: str) -> Iterator[None]:
        """One text of one file replaced; as it was afterwards. Raises ValueError unless it occurs exactly once."""
        path = self.root / file
        before = path.read_text()
        path.write_text(replaced_once(before, old, new, where=file))
        try:
            yield
        finally:
            path.write_text(before)


def replaced_once(text: str, old: str, new: str, *, where: str) -> str:
    """`text` with its only `old` replaced; raises ValueError otherwise."""
    if text.count(old) != 1:
        raise ValueError(f"{where} holds {old!r} {text.count(old)} times, and must hold it once")
    return text.replace(old, new)
