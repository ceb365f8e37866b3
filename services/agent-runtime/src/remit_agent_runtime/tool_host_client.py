"""The runtime's side of the tool host: one supervised child process, many calls on their way at once.

    OutcomeUnknown            code tool.outcome_unknown: the call may have had its effect; it is never made again
    +-- ToolHostLost          the process ended, or did not answer in time, with the call on its way

`Unavailable` (tool host down, nothing was sent) and every `ToolOutcome` with `ok=False` mean that there was no effect,
except `tool.http_status`, whose effect is what the tool's server says it is.

    client = ToolHostClient(home=..., key_file=..., permit_public_key_file=..., broker_public_key_file=...)
    await client.start()
    outcome = await client.call(ToolCall(permit=..., sealed_lease=None, tool="sql", arguments={...},
                                         idempotency_key="{run}:{ordinal}", deadline_seconds=10.0))
    await client.close()
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from remit_agent_runtime.toolhost import wire
from remit_contracts.errors import RemitError, Unavailable

OUTCOME_UNKNOWN: Final = "tool.outcome_unknown"
START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 3.0
ANSWER_GRACE_SECONDS: Final = 1.0
"""The host keeps the deadline itself; this much later its silence counts as loss."""
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 5.0
SETTLED_SECONDS: Final = 10.0
"""A host that lived this long starts again at once; one that dies sooner is given longer and longer pauses."""


class OutcomeUnknown(RemitError):
    """The call was sent and nobody can say what became of it."""

    code = OUTCOME_UNKNOWN


class ToolHostLost(OutcomeUnknown):
    """The tool host went away, or fell silent, with the call on its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call. `idempotency_key` is `{run}:{ordinal}` and must be the permit's; `sealed_lease` is base64."""

    permit: str
    tool: str
    arguments: dict[str, Any]
    idempotency_key: str
    sealed_lease: str | None = None
    deadline_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutcome:
    """What a tool answered, obligations applied.

    `content` is a JSON value; `error` is `{"code", "reason"}` when not `ok`. `withheld` is what was kept back:
    `{"fields": [names], "rows_cut": n, "row_filters": ["table.column"]}`, empty when nothing was.
    """

    ok: bool
    content: Any = None
    error: dict[str, str] | None = None
    withheld: dict[str, Any] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


@dataclass(slots=True)
class _Host:
    """One life of the child."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    started_at: float
    waiting: dict[int, asyncio.Future[wire.Outcome]] = field(default_factory=dict)
    outgoing: list[bytes] = field(default_factory=list)
    overdue: int = 0

    def send(self, body: bytes) -> None:
        """Write with all that is sent in the same turn of the loop: calls whose records became durable together."""
        self.outgoing.append(body)
        if len(self.outgoing) == 1:
            asyncio.get_running_loop().call_soon(self._write)

    def end_if_stuck(self) -> None:
        """Have a host replaced that has threads which do not stop, as soon as no call is on its way."""
        if self.overdue and not self.waiting:
            self.writer.close()

    def _write(self) -> None:
        bodies, self.outgoing = self.outgoing, []
        if not self.writer.is_closing():
            self.writer.write(b"".join(bodies))


class ToolHostClient:
    """Starts, watches and restarts the tool host. Belongs to one event loop."""

    def __init__(
        self,
        *,
        home: Path,
        key_file: Path,
        permit_public_key_file: Path,
        broker_public_key_file: Path,
        threads: int = 4,
        overdue_seconds: float = 5.0,
    ) -> None:
        self._setup = wire.Setup(
            home=str(home.absolute()),
            key_file=str(key_file.absolute()),
            permit_public_key_file=str(permit_public_key_file.absolute()),
            broker_public_key_file=str(broker_public_key_file.absolute()),
            threads=threads,
            overdue_seconds=overdue_seconds,
        )
        self._ids = itertools.count(1)
        self._host: _Host | None = None
        self._up = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, or None while there is none."""
        return self._host.process.pid if self._host else None

    @property
    def ready(self) -> bool:
        """Whether calls go out at once."""
        return self._up.is_set()

    @property
    def overdue(self) -> int:
        """How many of the child's threads work on long after their call, and so serve nobody."""
        return self._host.overdue if self._host else 0

    async def check(self) -> str:
        """What the service's health says of the child; raises Unavailable while not all of it serves."""
        if not self.ready:
            raise Unavailable("the tool host is starting again")
        if self.overdue:
            raise Unavailable(f"{self.overdue} thread(s) of the tool host do not stop: it ends when no call is open")
        return f"process {self.pid}"

    async def start(self) -> None:
        """Start the child and wait until it takes calls; raises Unavailable with the host's own reason."""
        self._host = await self._launch()
        self._up.set()
        self._supervisor = asyncio.create_task(self._supervise(self._host), name="tool-host-supervisor")

    async def close(self) -> None:
        """End the child; calls still on their way raise ToolHostLost."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        self._up.clear()
        host, self._host = self._host, None
        if host is not None:
            await self._end(host)

    async def call(self, call: ToolCall) -> ToolOutcome:
        """Make one call.

        Raises Unavailable when the host could not be reached within the deadline (nothing was sent) and OutcomeUnknown
        when the call may have had its effect. Cancelling the caller tells the host to stop; the outcome is then
        unknown.
        """
        began = time.monotonic()
        host = await self._reachable(call.deadline_seconds)
        left = max(0.001, call.deadline_seconds - (time.monotonic() - began))
        number = next(self._ids)
        try:
            body = wire.frame(
                wire.Call(
                    id=number,
                    permit=call.permit,
                    sealed_lease=call.sealed_lease,
                    tool=call.tool,
                    arguments=call.arguments,
                    idempotency_key=call.idempotency_key,
                    deadline_seconds=left,
                )
            )
        except wire.FrameTooLarge as fault:
            return ToolOutcome(ok=False, error={"code": "tool.arguments_too_large", "reason": str(fault)})
        answer: asyncio.Future[wire.Outcome] = asyncio.get_running_loop().create_future()
        host.waiting[number] = answer
        host.send(body)
        try:
            async with asyncio.timeout(left + ANSWER_GRACE_SECONDS):
                outcome = await answer
        except TimeoutError:
            self._give_up(host, number)
            raise ToolHostLost(f"the tool host did not answer the call of {call.tool} in time") from None
        except asyncio.CancelledError:
            self._give_up(host, number)
            raise
        finally:
            host.waiting.pop(number, None)
            host.end_if_stuck()
        if outcome.error is not None and outcome.error.get("code") == OUTCOME_UNKNOWN:
            raise OutcomeUnknown(outcome.error.get("reason", ""))
        return ToolOutcome(
            ok=outcome.ok,
            content=outcome.content,
            error=outcome.error,
            withheld=outcome.withheld,
            cpu_seconds=outcome.cpu_seconds,
            wall_seconds=outcome.wall_seconds,
        )

    async def _reachable(self, deadline_seconds: float) -> _Host:
        try:
            async with asyncio.timeout(deadline_seconds):
                while True:
                    if self._supervisor is None:
                        raise Unavailable("the tool host was not started, or has been closed")
                    if self._host is not None and not self._host.writer.is_closing():
                        return self._host
                    self._up.clear()
                    await self._up.wait()
        except TimeoutError:
            raise Unavailable(
                "the tool host is being restarted and nothing was sent: try again", retry_after_seconds=1.0
            ) from None

    def _give_up(self, host: _Host, number: int) -> None:
        if not host.writer.is_closing():
            host.send(wire.frame(wire.Cancel(id=number)))

    async def _launch(self) -> _Host:
        ours, theirs = socket.socketpair()
        try:
            # An empty environment: nothing of the runtime's (provider keys, proxies, paths) reaches the host. -I keeps
            # PYTHON* variables and the working directory out of its imports as well.
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-m", "remit_agent_runtime.toolhost", str(theirs.fileno()),
                pass_fds=(theirs.fileno(),), env={}, cwd=os.sep, start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as fault:
            ours.close()
            raise Unavailable(f"the tool host could not be started: {fault}") from None
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours, limit=wire.LIMIT_BYTES)
        host = _Host(process=process, reader=reader, writer=writer, started_at=time.monotonic())
        try:
            writer.write(wire.frame(self._setup))
            async with asyncio.timeout(START_SECONDS):
                body = await wire.read_frame(reader)
            said = wire.decode_ready(body) if body is not None else wire.Ready(refused="it ended while starting")
        except (TimeoutError, msgspec.MsgspecError, wire.FrameTooLarge) as fault:
            said = wire.Ready(refused=f"it did not say that it is ready ({type(fault).__name__})")
        except asyncio.CancelledError:
            await self._end(host)
            raise
        if said.refused:
            await self._end(host)
            raise Unavailable(f"the tool host does not start: {said.refused}")
        return host

    async def _supervise(self, host: _Host) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            await self._receive(host)
            self._host = None
            self._up.clear()
            await self._end(host)
            if time.monotonic() - host.started_at > SETTLED_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            while True:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                with contextlib.suppress(Unavailable):
                    host = await self._launch()
                    break
            self._host = host
            self._up.set()

    async def _receive(self, host: _Host) -> None:
        """Hand outcomes to their callers until the host has gone or says what cannot be understood."""
        with contextlib.suppress(msgspec.MsgspecError, wire.FrameTooLarge):
            async for body in wire.frames(host.reader):
                said = wire.decode_said(body)
                if isinstance(said, wire.Overdue):
                    host.overdue = said.threads
                    host.end_if_stuck()
                    continue
                waiting = host.waiting.pop(said.id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(said)

    async def _end(self, host: _Host) -> None:
        """Close the socket, which ends the host; kill it when it lingers. What was on its way is lost."""
        for answer in host.waiting.values():
            if not answer.done():
                answer.set_exception(ToolHostLost("the tool host ended with the call on its way"))
        host.waiting.clear()
        host.writer.close()
        with contextlib.suppress(OSError):
            await host.writer.wait_closed()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await host.process.wait()
        except TimeoutError:
            host.process.kill()
            await host.process.wait()
