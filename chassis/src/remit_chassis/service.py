"""A service's life: connect, answer, be ready only when a write succeeds, drain, end.

Example, the whole of a `__main__`:

    service = Service("auth", settings)
    service.command("whoami", Nothing)(handlers.whoami)
    service.run()
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from faststream.nats import NatsBroker, NatsNKey  # here, not later: `remit up` imports once and forks

from remit_chassis import direct, logs, operations, readiness, telemetry
from remit_chassis.doorman import Doorman
from remit_chassis.endpoints import DEFAULT_MAX_BYTES, Endpoint, Handler, decoding
from remit_chassis.eventstore.stores import EventStores
from remit_chassis.keyring import BrokerUserKeys
from remit_chassis.requester import Requester
from remit_chassis.settings import ServiceSettings, read_hex_secret
from remit_contracts import subjects
from remit_contracts.errors import Refusal, Unavailable
from remit_contracts.identity import Caller
from remit_contracts.messages import Command, encode
from remit_contracts.operations import Check, Health

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from pydantic import BaseModel

    from remit_chassis.keyring import UserKeys

C = TypeVar("C", bound=Command)
Hook = Callable[[], Awaitable[None]]
Probe = Callable[[], Awaitable[str]]
"""Returns what is well in a few words; raises when it is not."""

CANCEL_AGAIN_SECONDS = 0.5
PENDING_BYTES = 64 * 1024 * 1024
YOUNG_OBJECTS = 10_000


def utc_now() -> datetime:
    """The clock of a running service; tests pass their own."""
    return datetime.now(UTC)


class Service:
    """One process of the platform. Verbs are registered first; `run` blocks until SIGTERM or SIGINT."""

    def __init__(
        self, name: str, settings: ServiceSettings, *, user_keys: UserKeys | None = None, inbox: str | None = None
    ) -> None:
        self.name = name
        self.settings = settings
        self.clock = utc_now
        self.metrics = telemetry.Metrics()
        self.checks: dict[str, Probe] = {}
        self.inbox = inbox or subjects.service_inbox(name)
        self._own_keys = user_keys
        self._endpoints: list[Endpoint] = []
        self._on_start: list[Hook] = []
        self._on_ready: list[Hook] = []
        self._on_stop: list[Hook] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._doorman = Doorman(self._serve, self._publish, self.metrics)
        self._doors: list[Subscription] = []
        self._broker: NatsBroker | None = None
        self._requester: Requester | None = None
        self._stopping = asyncio.Event()
        self.stores: EventStores
        self.user_keys: UserKeys

    # -- what it answers -------------------------------------------------------------------------------------------

    def command(
        self, verb: str, model: type[C], *, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> Callable[[Callable[[C, Caller], Awaitable[Any]]], Callable[[C, Caller], Awaitable[Any]]]:
        """Answer users' clients on `remit.*.*.cmd.{service}.{verb}`."""
        return self._register("cmd", verb, model, max_bytes)

    def rpc(
        self, verb: str, model: type[C], *, max_bytes: int = DEFAULT_MAX_BYTES, from_log: bool = True
    ) -> Callable[[Callable[[C, Caller], Awaitable[Any]]], Callable[[C, Caller], Awaitable[Any]]]:
        """Answer other services on `remit.*.*.rpc.{service}.{verb}`; `from_log`: see Endpoint."""
        return self._register("rpc", verb, model, max_bytes, from_log=from_log)

    def hot_rpc(self, verb: str, handle: Handler, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Answer other services without FastStream, spans and pydantic: bytes in, bytes out."""
        self._endpoints.append(Endpoint("rpc", self.name, verb, handle, max_bytes, hot=True))

    def _register(
        self, kind: str, verb: str, model: type[C], max_bytes: int, *, from_log: bool = True
    ) -> Callable[[Callable[[C, Caller], Awaitable[Any]]], Callable[[C, Caller], Awaitable[Any]]]:
        def register(handler: Callable[[C, Caller], Awaitable[Any]]) -> Callable[[C, Caller], Awaitable[Any]]:
            endpoint = Endpoint(kind, self.name, verb, decoding(model, handler), max_bytes, from_log=from_log)
            self._endpoints.append(endpoint)
            return handler

        return register

    def on_start(self, hook: Hook) -> Hook:
        """Run `hook` when the bus and the stores are there, before the first request."""
        self._on_start.append(hook)
        return hook

    def on_ready(self, hook: Hook) -> Hook:
        """Run `hook` after readiness was announced: for what may load late."""
        self._on_ready.append(hook)
        return hook

    def on_stop(self, hook: Hook) -> Hook:
        """Run `hook` after the last request, before the stores close."""
        self._on_stop.append(hook)
        return hook

    def check(self, name: str, probe: Probe) -> None:
        """Add a check to readiness and to `health`."""
        self.checks[name] = probe

    # -- what it says ----------------------------------------------------------------------------------------------

    @property
    def nc(self) -> Client:
        """The connection, once started."""
        if self._broker is None or self._broker._connection is None:
            raise Unavailable("the bus is not connected yet")
        return self._broker._connection

    @property
    def requester(self) -> Requester:
        """Asks other services; see `ask` for the usual form."""
        if self._requester is None:
            raise Unavailable("the bus is not connected yet")
        return self._requester

    async def ask(
        self,
        tenant: str,
        user: str,
        service: str,
        verb: str,
        payload: bytes | BaseModel | dict[str, Any] = b"{}",
        *,
        timeout_seconds: float = 5.0,
    ) -> bytes:
        """Ask another service for that user; raises the Refusal that it answers with, or Unavailable."""
        return await self.requester.ask(
            subjects.rpc(tenant, user, service, verb),
            encode(payload),
            headers=telemetry.outgoing_headers(),
            timeout_seconds=timeout_seconds,
        )

    async def publish_live(self, tenant: str, user: str, topic: tuple[str, ...], payload: bytes) -> None:
        """Progress for whoever listens now; never stored."""
        await self.nc.publish(subjects.live(tenant, user, *topic), payload)

    def spawn(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """A task that the service holds on to, ends at its stop, and whose failure is logged."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()):
            structlog.get_logger().error("task.failed", exc_info=fault)

    # -- its life --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Block until told to stop. When it cannot start: one line on why, and the refusal's exit code or 1."""
        logs.configure(self.name, self.settings.log_level)
        telemetry.configure_tracing(self.name)
        try:
            asyncio.run(self._live())
        except Exception as fault:
            structlog.get_logger().exception("service.failed")
            readiness.announce_failure(f"{self.name}: {fault}")
            sys.exit(fault.exit_code if isinstance(fault, Refusal) else 1)

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self.start()
        try:
            if await self._until_ready():
                for tenant, reason in self.stores.contradictions().items():
                    readiness.announce_contradicted(tenant, reason)
                readiness.announce_ready()
                structlog.get_logger().info("service.ready")
                for hook in self._on_ready:
                    await hook()
                settle_memory()
            await self._stopping.wait()
        finally:
            await self.shut_down()

    def stop(self) -> None:
        """Ask `run` to drain and return."""
        self._stopping.set()

    async def start(self) -> None:
        """Connect, open the stores, run the start hooks, then answer."""
        broker = self._broker = self._make_broker()
        operations.register(self)
        for endpoint in self._endpoints:
            if endpoint.kind == "rpc" and not endpoint.hot:
                self._route(broker, endpoint)
        await broker.connect()
        self._requester = Requester(self.nc, self.inbox)
        await self._requester.start()
        self.user_keys = self._own_keys or BrokerUserKeys(
            ask=self.ask, service=self.name, box_seed=read_hex_secret(self.settings.box_key_file)
        )
        self.stores = EventStores(self, self.user_keys)
        await self.stores.open()
        for hook in self._on_start:
            await hook()
        await broker.start()
        self.spawn(self._doorman.run())
        for endpoint in self._endpoints:
            if endpoint.hot:
                await direct.subscribe(self.nc, endpoint.subject, partial(self._serve, endpoint), queue=self.name)
            elif endpoint.kind == "cmd":
                door = self._doorman.door(endpoint)
                self._doors.append(await direct.subscribe(self.nc, endpoint.subject, door, queue=self.name))
        if self.settings.metrics_port:
            self.metrics.listen(self.settings.metrics_port)

    async def shut_down(self) -> None:
        """Finish what was begun, then close: requests, hooks, tasks, stores, connection."""
        deadline = self.settings.drain_seconds
        if self._broker:
            for subscriber in self._broker.subscribers:
                await subscriber.stop()
        doors, self._doors = self._doors, []  # a second call finds none, and no connection either
        for door in doors:
            if not self.nc.is_closed:
                await door.unsubscribe()
        serving = [task for task in self._tasks if task.get_name() == "serve"]
        if serving:
            await asyncio.wait(serving, timeout=deadline)
        for hook in reversed(self._on_stop):
            await hook()
        await self._end_tasks(deadline)
        self._doorman.close()
        if hasattr(self, "stores"):
            await self.stores.close()
        if self._requester:
            await self._requester.stop()
        if self._broker:
            await self._broker.stop()

    async def _end_tasks(self, within_seconds: float) -> None:
        """Cancel, and again: Python 3.11's `wait_for`, which the bus client uses, can swallow a cancellation."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_seconds
        while self._tasks and loop.time() < deadline:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=CANCEL_AGAIN_SECONDS)
        for task in self._tasks:
            structlog.get_logger().error("task.did_not_end", task=task.get_name())

    async def _until_ready(self) -> bool:
        """Readiness is a write that succeeded, not a flag: wait until every check passes. False when told to stop."""
        told: dict[str, Check] = {}
        while not self._stopping.is_set():
            report = await self.health()
            if report.ready:
                return True
            failed = {name: check for name, check in report.checks.items() if not check.ok}
            structlog.get_logger().info("service.waiting", faults={name: it.detail for name, it in failed.items()})
            for name, check in failed.items() - told.items():
                readiness.announce_waiting(f"{name}: {check.detail}", code=check.code)
            told = failed
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self._stopping.wait()
        return False

    async def health(self) -> Health:
        """Run every check now."""
        checks: dict[str, Check] = {}
        for name, probe in self.checks.items():
            try:
                checks[name] = Check(ok=True, detail=await probe())
            except Exception as fault:
                code = fault.refusal_code if isinstance(fault, Refusal) else ""
                checks[name] = Check(ok=False, detail=str(fault) or type(fault).__name__, code=code)
        return Health(
            service=self.name,
            version=version("remit-chassis"),
            ready=all(check.ok for check in checks.values()),
            checks=checks,
            contradicted=self.stores.contradictions(),
        )

    # -- the bus ---------------------------------------------------------------------------------------------------

    def _make_broker(self) -> NatsBroker:
        return NatsBroker(
            self.settings.nats_url,
            security=NatsNKey.from_file(self.settings.nkey_file, ssl_context=self.settings.nats_tls()),
            name=self.name,
            inbox_prefix=self.inbox,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            pending_size=PENDING_BYTES,
            flusher_queue_size=4096,
            apply_types=False,
            logger=None,
            error_cb=self._bus_error,
            decoder=_undecoded,
        )

    def _route(self, broker: NatsBroker, endpoint: Endpoint) -> None:
        # FastStream answers with the inbound correlation header copied out, so it routes only and we answer ourselves.
        @broker.subscriber(endpoint.subject, queue=self.name, no_reply=True, title=f"{endpoint.kind}.{endpoint.verb}")
        async def handle(message: Msg) -> None:
            self._serve(endpoint, message)

    def _serve(self, endpoint: Endpoint, message: Msg) -> asyncio.Task[None]:
        task = self.spawn(endpoint.serve(message, self._publish, self.metrics, self.stores.confirmed))
        task.set_name("serve")
        return task

    async def _publish(self, subject: str, payload: bytes) -> None:
        await self.nc.publish(subject, payload)

    async def _bus_error(self, fault: Exception) -> None:
        structlog.get_logger().warning("bus.error", error=str(fault)[:300])


def settle_memory() -> None:
    """Once what stays has been made: leave it out of garbage collection, and look at what is young less often.

    A call makes some thousand objects, nearly all gone when it ends; by default the collector runs every 700.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


async def _undecoded(message: Any) -> Any:
    """FastStream's decoder: the handler gets the message of the client library as it is."""
    return message.raw_message
