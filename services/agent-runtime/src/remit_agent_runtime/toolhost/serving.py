"""The tool host's loop: frames in, outcomes out, many calls at once."""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from functools import partial
from typing import Final

import msgspec

from remit_agent_runtime.toolhost import wire
from remit_agent_runtime.toolhost.carrying_out import ToolRunner
from remit_agent_runtime.toolhost.refusals import FAILED, RESULT_TOO_LARGE, ToolRefused
from remit_contracts.errors import Overloaded, Refusal

MAX_IN_FLIGHT: Final = 1_024
MAX_REASON_CHARACTERS: Final = 1_000


class Serving:
    """One connection to the runtime."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, runner: ToolRunner) -> None:
        self._reader = reader
        self._writer = writer
        self._runner = runner
        self._tasks: dict[int, asyncio.Task[None]] = {}
        runner.on_overdue(self._tell_overdue)

    async def run(self) -> None:
        """Serve until the runtime has gone, or says what cannot be understood: then this process must end."""
        async for body in wire.frames(self._reader):
            request = wire.decode_request(body)
            if isinstance(request, wire.Cancel):
                if (task := self._tasks.get(request.id)) is not None:
                    task.cancel()
            elif len(self._tasks) >= MAX_IN_FLIGHT:
                self._answer(_refused(request.id, Overloaded("the tool host has too many calls on their way")))
            else:
                task = asyncio.create_task(self._serve(request))
                self._tasks[request.id] = task
                task.add_done_callback(partial(self._done, request.id))

    async def _serve(self, call: wire.Call) -> None:
        began = time.monotonic()
        try:
            result = await self._runner.carry_out(call)
            outcome = wire.Outcome(
                id=call.id,
                ok=True,
                content=result.content,
                withheld=result.withheld,
                cpu_seconds=result.cpu_seconds,
                wall_seconds=time.monotonic() - began,
            )
        except Refusal as refusal:
            outcome = _refused(call.id, refusal, time.monotonic() - began)
        except Exception as bug:
            # Only where it happened: an exception's text could hold arguments, rows or a credential.
            where = "".join(traceback.format_tb(bug.__traceback__))
            print(f"a bug in the tool host ({type(bug).__name__}):\n{where}", file=sys.stderr, flush=True)
            outcome = _refused(call.id, ToolRefused("the tool failed: see the tool host's log", code=FAILED))
        self._answer(outcome)

    def _done(self, number: int, _: asyncio.Task[None]) -> None:
        self._tasks.pop(number, None)

    def _tell_overdue(self, threads: int) -> None:
        print(f"tool threads that work on although their call is over: {threads}", file=sys.stderr, flush=True)
        if not self._writer.is_closing():
            self._writer.write(wire.frame(wire.Overdue(threads=threads)))

    def _answer(self, outcome: wire.Outcome) -> None:
        try:
            encoded = wire.frame(outcome)
        except (wire.FrameTooLarge, msgspec.MsgspecError, UnicodeEncodeError, ValueError, TypeError):
            refusal = ToolRefused("the result cannot be passed on: it is too large or no JSON", code=RESULT_TOO_LARGE)
            encoded = wire.frame(_refused(outcome.id, refusal, outcome.wall_seconds))
        if not self._writer.is_closing():
            self._writer.write(encoded)


def _refused(number: int, refusal: Refusal, wall_seconds: float = 0.0) -> wire.Outcome:
    reason = refusal.reason.encode(errors="replace").decode()[:MAX_REASON_CHARACTERS]
    content = refusal.content if isinstance(refusal, ToolRefused) else None
    error = {"code": refusal.refusal_code, "reason": reason}
    return wire.Outcome(id=number, ok=False, content=content, error=error, wall_seconds=wall_seconds)
