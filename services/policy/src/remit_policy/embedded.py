"""The Rego engine of `gordon-to-regorus` in child processes: nothing else can interrupt a running evaluation.

A child that misses its deadline is killed and replaced, with the same policies and data; decisions that merely waited
behind the late one are asked again, once. Measured: 125 to 185 ms to start a child, 0.1 ms for the hop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import orjson
import structlog

from remit_policy.engine import (
    DEADLINE_SECONDS,
    MAX_INPUT_BYTES,
    PROBE_INPUT,
    PROBE_TENANT,
    EngineError,
    EngineFailed,
    EngineOverloaded,
    EngineUnreachable,
)
from remit_policy.engine_process import START_SECONDS, EngineDied, EngineLost, EngineProcess
from remit_policy.policies import Policies

MEMORY_LIMIT_BYTES = 512 * 1024 * 1024
MAX_WAITING = 4096
RESTART_PAUSE_SECONDS = 0.5


class EmbeddedEngine:
    """A pool of `size` children that all hold the same policies and data."""

    name = "embedded"

    def __init__(
        self,
        *,
        size: int = 1,
        deadline_seconds: float = DEADLINE_SECONDS,
        memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._size = size
        self._deadline_seconds = deadline_seconds
        self._memory_limit_bytes = memory_limit_bytes
        self._max_waiting = max_waiting
        self._waiting = 0
        self._policies = b""
        self._documents: dict[str, bytes] = {}
        self._processes: list[EngineProcess] = []
        self._someone_is_up = asyncio.Event()
        self._replacing: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that are up."""
        return [process.pid for process in self._processes]

    async def load(self, policies: Policies, data: Mapping[str, bytes]) -> None:
        """Start the children; raises EngineFailed with the first error of a policy that does not load."""
        self._policies = b"P " + orjson.dumps(dict(policies.modules))
        self._documents = dict(data)
        try:
            for _ in range(self._size):
                await self._add()
        except EngineError as fault:
            await self.close()
            raise EngineFailed(f"the policies do not load: {fault}") from fault

    async def update(self, tenant: str, document: bytes) -> None:
        """Replace one tenant's document, in order on each pipe: no evaluation sees half of it."""
        before = self._documents.get(tenant)
        self._documents[tenant] = document
        for answer in [self._send_document(process, tenant, document) for process in self._processes]:
            try:
                with contextlib.suppress(EngineLost, EngineDied):  # its replacement starts with the new document
                    await answer
            except EngineError:
                if before is not None and self._documents[tenant] is document:
                    self._documents[tenant] = before
                raise

    async def evaluate(self, tenant: str, input_json: bytes) -> bytes:
        """The rule's value as JSON; `"<undefined>"` when it has none."""
        if len(input_json) > MAX_INPUT_BYTES or b"\n" in input_json:
            raise EngineFailed(f"the input must be one line of at most {MAX_INPUT_BYTES} bytes")
        if self._waiting >= self._max_waiting:
            raise EngineOverloaded(f"{self._waiting} decisions are waiting")
        command = b"E %s %s" % (tenant.encode(), input_json)
        self._waiting += 1
        try:
            try:
                return await self._ask(command)
            except EngineLost:
                return await self._ask(command)
        except EngineLost as fault:
            raise EngineFailed(f"the engine was lost twice: {fault}") from fault
        finally:
            self._waiting -= 1

    async def probe(self) -> str:
        """Evaluates on each child."""
        if len(self._processes) < self._size:
            raise EngineUnreachable(f"{len(self._processes)} of {self._size} engines are up")
        command = b"E %s %s" % (PROBE_TENANT.encode(), PROBE_INPUT)
        for process in list(self._processes):
            await process.ask(command, deadline_seconds=self._deadline_seconds)
        return f"{self._size} embedded engine(s) decided"

    async def close(self) -> None:
        """Kill the children and wait until they are gone; nothing is replaced any more."""
        self._closing = True
        await asyncio.gather(*(process.close() for process in list(self._processes)))
        await asyncio.gather(*self._replacing)

    async def _ask(self, command: bytes) -> bytes:
        if not self._processes:
            await self._until_someone_is_up()
        process = min(self._processes, key=lambda candidate: candidate.waiting)
        return await process.ask(command, deadline_seconds=self._deadline_seconds)

    async def _until_someone_is_up(self) -> None:
        if self._closing:
            raise EngineUnreachable("the engines are closed")
        try:
            await asyncio.wait_for(self._someone_is_up.wait(), START_SECONDS)
        except TimeoutError:
            raise EngineUnreachable("no engine came up") from None

    # -- children --------------------------------------------------------------------------------------------------

    async def _add(self) -> None:
        process = await EngineProcess.start(memory_limit_bytes=self._memory_limit_bytes, on_lost=self._lost)
        if self._closing:
            await process.close()
            raise EngineUnreachable("the engines are closed")
        # All of it is written without a pause, so an update that comes meanwhile is written after it and wins.
        answers = [process.ask(self._policies, deadline_seconds=START_SECONDS)]
        answers += [self._send_document(process, tenant, document) for tenant, document in self._documents.items()]
        self._processes.append(process)
        try:
            await asyncio.gather(*answers)
        except BaseException:
            await process.close()
            raise
        self._someone_is_up.set()

    def _send_document(self, process: EngineProcess, tenant: str, document: bytes) -> asyncio.Future[bytes]:
        return process.ask(b"D %s %s" % (tenant.encode(), document), deadline_seconds=START_SECONDS)

    def _lost(self, process: EngineProcess) -> None:
        if process in self._processes:
            self._processes.remove(process)
        if not self._processes:
            self._someone_is_up.clear()
        if self._closing:
            return
        task = asyncio.ensure_future(self._replace(process))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _replace(self, process: EngineProcess) -> None:
        code = await process.gone()
        while not self._closing and len(self._processes) < self._size:
            structlog.get_logger().warning("engine.replaced", pid=process.pid, exit_code=code)
            try:
                await self._add()
            except (EngineError, OSError) as fault:
                structlog.get_logger().error("engine.not_started", error=str(fault)[:300])
                await asyncio.sleep(RESTART_PAUSE_SECONDS)  # a machine out of memory is not helped by a busy loop
