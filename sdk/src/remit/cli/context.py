"""What holds for one invocation: where the home is and how to answer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Output = Literal["table", "json"]


@dataclass(slots=True)
class Context:
    """`--home` and `--output`, wherever on the command line they stood."""

    home: Path = Path(".remit")
    output: Output = "table"

    @property
    def wants_json(self) -> bool:
        """Whether standard output belongs to a script."""
        return self.output == "json"


current = Context()


def from_environment() -> Context:
    """Defaults: `REMIT_HOME`, `REMIT_OUTPUT`."""
    output: Output = "json" if os.environ.get("REMIT_OUTPUT") == "json" else "table"
    return Context(home=Path(os.environ.get("REMIT_HOME", ".remit")), output=output)
