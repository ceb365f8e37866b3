"""What the demo expects, step by step, and what it saw."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from remit_contracts.errors import RemitError


@dataclass(slots=True)
class Step:
    """One expectation: `seen` is what happened, in words; `ok` whether it is what was expected."""

    id: str
    title: str
    expected: str
    seen: str = ""
    ok: bool = False
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For `--output json`."""
        return {
            "id": self.id,
            "title": self.title,
            "expected": self.expected,
            "seen": self.seen,
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "facts": self.facts,
        }


class Unexpected(RemitError):
    """A step saw something else than it expected."""


Body = Callable[[Step], Awaitable[str]]
"""Does the step and says what it saw; raises Unexpected, or anything else, when it was not as expected."""


class Story:
    """The steps in order. A failed step does not stop the next ones: a reader wants to see all that holds."""

    def __init__(self, told: Callable[[Step], None], begun: Callable[[Step], None]) -> None:
        self.steps: list[Step] = []
        self._told = told
        self._begun = begun

    async def step(self, name: str, title: str, expected: str, body: Body) -> bool:
        """Do one step; gives whether it held."""
        step = Step(name, title, expected)
        self.steps.append(step)
        self._begun(step)
        began = time.perf_counter()
        try:
            step.seen = await body(step)
            step.ok = True
        except (RemitError, OSError, KeyError, LookupError, ValueError, TimeoutError) as fault:
            step.seen = f"{type(fault).__name__}: {fault}"
        step.seconds = time.perf_counter() - began
        self._told(step)
        return step.ok

    @property
    def ok(self) -> bool:
        """Whether every expectation held."""
        return bool(self.steps) and all(step.ok for step in self.steps)


def expect(holds: object, otherwise: str) -> None:
    """Raise Unexpected with `otherwise` unless `holds`."""
    if not holds:
        raise Unexpected(otherwise)
