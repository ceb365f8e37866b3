"""What the runtime must not do at its start."""

from __future__ import annotations

import subprocess
import sys


def test_the_agent_loops_library_is_not_imported_before_it_is_needed() -> None:
    """It costs 0.7 s of CPU and 70 MB: readiness does not wait for it."""
    program = (
        "import remit_agent_runtime.__main__, sys; print([n for n in ('pydantic_ai', 'openai') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
