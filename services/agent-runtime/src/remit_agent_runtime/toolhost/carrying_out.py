"""Carries out one call: admission, obligations, the tool, and what was withheld.

A user has at most half of the threads at a time, so that one user's slow statements leave the others' their turn. A
thread cannot be ended from outside: one that works on long after its call is counted and told.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from remit_agent_runtime.fairness import FairGate
from remit_agent_runtime.toolhost import documents, functions, http_tool, obligations, sql_tool
from remit_agent_runtime.toolhost.admission import Admission, LeaseOpener
from remit_agent_runtime.toolhost.catalog import Catalog
from remit_agent_runtime.toolhost.definitions import DocumentsTool, FunctionTool, HttpTool, SqlTool, enforced_by
from remit_agent_runtime.toolhost.obligations import Bounds
from remit_agent_runtime.toolhost.refusals import BAD_ARGUMENTS, TIMEOUT, ToolRefused
from remit_agent_runtime.toolhost.wire import Call
from remit_contracts.errors import Refusal

LONGEST_DEADLINE_SECONDS = 300.0


class Result(NamedTuple):
    """What a tool gave; `cpu_seconds` is the tool's own work, without the event loop's share."""

    content: Any
    withheld: dict[str, Any]
    cpu_seconds: float


class ToolRunner:
    """The tools of one home. SQL and file work runs in a few threads; functions and HTTP on the loop."""

    def __init__(
        self, *, catalog: Catalog, admission: Admission, leases: LeaseOpener, threads: int, overdue_seconds: float
    ) -> None:
        self._catalog = catalog
        self._admission = admission
        self._leases = leases
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="tool")
        self._turns = FairGate(in_flight=threads, in_flight_per_user=max(1, threads // 2))
        self._overdue_seconds = overdue_seconds
        self._overdue: set[asyncio.Future[Result]] = set()
        self._tell_overdue: Callable[[int], None] = lambda _: None
        self._documents = documents.DocumentIndexes()

    def on_overdue(self, tell: Callable[[int], None]) -> None:
        """Have `tell` called with the number of overdue threads each time that it changes."""
        self._tell_overdue = tell

    async def carry_out(self, call: Call) -> Result:
        """Raises Refusal. The permit is used up as soon as it proves to be for this call, whatever happens then."""
        deadline = time.monotonic() + min(call.deadline_seconds, LONGEST_DEADLINE_SECONDS)
        claims = self._admission.admit(call, now=time.time())
        tool = self._catalog.find(claims.tenant, claims.tool)
        bounds = obligations.read(claims.obligations, enforces=enforced_by(tool))
        match tool:
            case FunctionTool():
                began = time.thread_time()
                try:
                    content = functions.call(tool.entry, call.arguments)
                except functions.BadArguments as fault:
                    raise ToolRefused(str(fault), code=BAD_ARGUMENTS) from None
                return Result(content, {}, time.thread_time() - began)
            case SqlTool():
                sql = sql_tool.statement_of(call.arguments)
                return await self._in_thread(
                    (claims.tenant, claims.user),
                    deadline,
                    lambda stopped: sql_tool.run_statement(
                        tool, self._catalog.home, sql, bounds, deadline=deadline, stopped=stopped
                    ),
                )
            case DocumentsTool():
                return await self._in_thread(
                    (claims.tenant, claims.user),
                    deadline,
                    lambda stopped: self._search(claims.tenant, tool, call.arguments, bounds),
                )
            case HttpTool():
                http_tool.check_arguments(tool, call.arguments)
                lease = self._leases.open(call.sealed_lease, claims=claims, tool=tool, now=time.time())
                left = max(0.001, min(deadline - time.monotonic(), lease.expires_at - time.time()))
                began = time.thread_time()
                answer = await http_tool.request(tool, call.arguments, lease, key=claims.effect_key, seconds=left)
                # The loop's thread serves other calls meanwhile: an upper bound, exact for a call alone.
                return Result(answer, {}, time.thread_time() - began)

    def close(self) -> None:
        """Forget the indexes and let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._documents.close()

    def _search(self, tenant: str, tool: DocumentsTool, arguments: dict[str, Any], bounds: Bounds) -> tuple[Any, Any]:
        query = documents.query_of(arguments, passages=tool.passages)
        found = self._documents.search((tenant, tool.id), self._catalog.home / tool.folder, query)
        kept = found if bounds.max_rows is None else found[: bounds.max_rows]
        cut = len(found) - len(kept)
        withheld = {"fields": [], "rows_cut": cut, "row_filters": []} if cut else {}
        return {"passages": [passage._asdict() for passage in kept]}, withheld

    async def _in_thread(
        self, user: tuple[str, str], deadline: float, work: Callable[[threading.Event], tuple[Any, dict[str, Any]]]
    ) -> Result:
        """Run `work` in a thread at this user's turn; at the deadline or when cancelled it is told to stop, and nobody
        waits for it."""
        stopped = threading.Event()

        def timed() -> Result:
            began = time.thread_time()
            content, withheld = work(stopped)
            return Result(content, withheld, time.thread_time() - began)

        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._turns.enter(user)
        except TimeoutError:
            raise ToolRefused("the tool host was too busy to begin in time", code=TIMEOUT) from None
        running = asyncio.get_running_loop().run_in_executor(self._threads, timed)
        # The turn lasts as long as the thread, and not only as long as somebody waits for it.
        running.add_done_callback(lambda _: self._turns.leave(user))
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await asyncio.shield(running)
        except TimeoutError:
            raise ToolRefused("the tool did not answer within its deadline", code=TIMEOUT) from None
        finally:
            stopped.set()
            running.add_done_callback(_forget)
            if not running.done():
                self._watch(running)

    def _watch(self, running: asyncio.Future[Result]) -> None:
        """Tell when a thread has not ended `overdue_seconds` after it was told to stop, and again when it has."""

        def late() -> None:
            self._overdue.add(running)
            self._tell_overdue(len(self._overdue))

        def ended(_: asyncio.Future[Result]) -> None:
            alarm.cancel()
            if running in self._overdue:
                self._overdue.remove(running)
                self._tell_overdue(len(self._overdue))

        alarm = asyncio.get_running_loop().call_later(self._overdue_seconds, late)
        running.add_done_callback(ended)


def _forget(done: asyncio.Future[Result]) -> None:
    """Look at the outcome that nobody waits for, so that asyncio does not report it."""
    with suppress(asyncio.CancelledError, Refusal, Exception):
        done.result()
