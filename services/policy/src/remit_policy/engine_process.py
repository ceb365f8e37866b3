"""One engine child as its parent sees it: commands pipelined over a socketpair, answered in order, each in time."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, cast

from remit_policy.engine import DECISION_RULE, EngineError, EngineFailed, EngineTimeout

START_SECONDS = 10.0


class EngineDied(EngineFailed):
    """The child went down while it evaluated this."""


class EngineLost(EngineError):
    """The child went down under another's evaluation: this one may be asked again."""


class _Asked(NamedTuple):
    answer: asyncio.Future[bytes]
    deadline_seconds: float


class EngineProcess(asyncio.Protocol):
    """Started by `start`. When it goes down for whatever reason it stays down, and `on_lost` is called once."""

    def __init__(self, child: subprocess.Popen[bytes], on_lost: Callable[[EngineProcess], None]) -> None:
        self._child = child
        self._on_lost = on_lost
        self._asked: deque[_Asked] = deque()
        self._pending = b""
        self._watchdog: asyncio.TimerHandle | None = None
        self._fault: EngineError | None = None
        self._transport: asyncio.WriteTransport
        self._loop = asyncio.get_running_loop()
        self._reaped: asyncio.Future[int] | None = None

    @classmethod
    async def start(cls, *, memory_limit_bytes: int, on_lost: Callable[[EngineProcess], None]) -> EngineProcess:
        """Execute a fresh interpreter with an empty environment; nothing of this process's memory is inherited."""
        ours, theirs = socket.socketpair()
        with theirs:
            child = subprocess.Popen(  # noqa: ASYNC220 - vfork and exec take a millisecond, and only at a start
                [
                    *(sys.executable, "-I", "-B", "-m", "remit_policy.engine_child"),
                    *(str(theirs.fileno()), str(os.getpid()), str(memory_limit_bytes), DECISION_RULE),
                ],
                env={},
                cwd="/",
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            _, process = await loop.create_connection(lambda: cls(child, on_lost), sock=ours)
        except BaseException:
            child.kill()
            child.wait()
            raise
        return process

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def waiting(self) -> int:
        """Commands that are not answered yet."""
        return len(self._asked)

    def ask(self, command: bytes, *, deadline_seconds: float) -> asyncio.Future[bytes]:
        """Send one command (a line without its end). The future gives what follows `=`, or an EngineError.

        The deadline counts from when the child turns to this command, not from now.
        """
        answer: asyncio.Future[bytes] = self._loop.create_future()
        if self._fault:
            answer.set_exception(EngineLost(str(self._fault)))
            return answer
        self._asked.append(_Asked(answer, deadline_seconds))
        self._transport.writelines((command, b"\n"))
        if len(self._asked) == 1:
            self._watch()
        return answer

    async def close(self) -> None:
        """Kill the child and wait until it is gone."""
        self._go_down(EngineDied("the engine was closed"))
        await self.gone()

    async def gone(self) -> int:
        """The child's exit code, once it has one. It was killed or hung up, so this takes no time of note."""
        if self._reaped is None:
            self._reaped = self._loop.run_in_executor(None, self._child.wait)
        return await asyncio.shield(self._reaped)

    # -- asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        if self._watchdog:
            self._watchdog.cancel()
            self._watchdog = None
        for line in lines:
            if not self._asked:
                self._go_down(EngineDied("the engine spoke without being asked"))
                return
            answer = self._asked.popleft().answer
            if answer.done():
                continue
            if line.startswith(b"="):
                answer.set_result(line[1:])
            else:
                answer.set_exception(EngineFailed(line[2:].decode(errors="replace")))
        if self._asked:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._go_down(EngineDied("the engine died"))

    # -- going down ------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        self._watchdog = self._loop.call_later(self._asked[0].deadline_seconds, self._late)

    def _late(self) -> None:
        self._go_down(EngineTimeout(f"no answer within {self._asked[0].deadline_seconds} s"))

    def _go_down(self, fault: EngineError) -> None:
        """The head of the queue is to blame and gets the fault; those behind it are innocent and may ask again."""
        if self._fault:
            return
        self._fault = fault
        if self._watchdog:
            self._watchdog.cancel()
        self._child.kill()
        self._transport.abort()
        for place, asked in enumerate(self._asked):
            if not asked.answer.done():
                asked.answer.set_exception(fault if place == 0 else EngineLost(str(fault)))
                asked.answer.exception()  # retrieved here, so that an abandoned decision logs nothing
        self._asked.clear()
        self._on_lost(self)
