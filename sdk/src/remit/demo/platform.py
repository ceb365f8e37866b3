"""A platform of the demo's own: started as anybody would start it, waited for, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from remit_contracts.errors import Unavailable

STARTS_WITHIN_SECONDS = 60.0
STOPS_WITHIN_SECONDS = 30.0


class Platform:
    """`remit up --demo --home HOME` in a process of its own, for an `async with` block."""

    def __init__(self, home: Path, progress: Callable[[str], None]) -> None:
        self.home = home
        self._progress = progress
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "remit.cli", "up", "--demo", "--home", str(self.home)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(STARTS_WITHIN_SECONDS):
                await self._until_ready()
        except TimeoutError:
            await self.stop()
            raise Unavailable(
                f"the platform was not ready within {STARTS_WITHIN_SECONDS:g} s; logs: {self.home}/logs"
            ) from None
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """SIGTERM, and wait; a platform that does not end in time is killed and said so."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOPS_WITHIN_SECONDS):
                await process.communicate()
        except TimeoutError:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            raise Unavailable(f"the platform did not stop within {STOPS_WITHIN_SECONDS:g} s") from None

    async def _until_ready(self) -> None:
        """The words of `remit up` on standard error are its progress; `endpoints.json` says that it is ready."""
        process = self._process
        if process is None or process.stderr is None:
            raise Unavailable("the platform was not started")
        lines: list[str] = []
        while not (self.home / "endpoints.json").exists():
            line = await process.stderr.readline()
            if not line:
                await process.wait()
                raise Unavailable(f"the platform ended at its start: {' '.join(lines[-3:]) or process.returncode}")
            lines.append(line.decode(errors="replace").strip())
            self._progress(lines[-1])
