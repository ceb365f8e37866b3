"""The policies that are in force, and the digest that names them in every decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

TESTS = "_test.rego"


@dataclass(frozen=True)
class Policies:
    """Rego modules by name; a name is the path inside the bundle, such as `remit/base/base.rego`."""

    modules: Mapping[str, str]

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex over names and sources in the order of the names, each preceded by its length in 8 bytes."""
        content = sha256()
        for name, source in sorted(self.modules.items()):
            for part in (name.encode(), source.encode()):
                content.update(len(part).to_bytes(8, "big"))
                content.update(part)
        return content.hexdigest()


def base_policies() -> Policies:
    """The policies that this package carries, without their tests."""
    return Policies({name: source for name, source in _modules() if not name.endswith(TESTS)})


def base_policy_tests() -> Policies:
    """The tests beside them."""
    return Policies({name: source for name, source in _modules() if name.endswith(TESTS)})


def _modules() -> Iterator[tuple[str, str]]:
    yield from _walk(files("remit_policy") / "rego", "")


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda found: found.name):
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".rego"):
            yield prefix + entry.name, entry.read_text(encoding="utf-8")
