"""With what the tool host process is started, whoever may look into it afterwards."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from unit.toolhost.rig import make_rig

from remit_contracts.errors import Unavailable


async def test_the_tool_host_is_started_without_the_runtimes_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "CANARY-OF-THE-RUNTIME")
    started: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    async def refuse(*arguments: Any, **options: Any) -> Any:
        started.append((arguments, options))
        raise OSError("not today")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    with pytest.raises(Unavailable):
        await make_rig(tmp_path).client().start()
    ((arguments, options),) = started
    assert options["env"] == {}
    assert len(options["pass_fds"]) == 1
    assert arguments[:3] == (sys.executable, "-I", "-m")
    assert "CANARY" not in str(started)
