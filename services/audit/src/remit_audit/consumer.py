"""Every tenant's stream is found, followed into its ledger and watched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.errors import Error as NatsError

from remit_audit.findings import Finding
from remit_audit.follower import Follower
from remit_audit.ledger import Ledger
from remit_audit.pull import DURABLE
from remit_audit.watch import Watch
from remit_chassis.streams import ask_jetstream, stream_info, stream_names
from remit_contracts import subjects
from remit_contracts.errors import Absent, Refusal, Tampered, Unavailable
from remit_contracts.identity import SYSTEM_USER, is_label
from remit_contracts.operations import MAX_REPUBLISHED, Republish
from remit_contracts.trails import TenantFollowed

if TYPE_CHECKING:
    from remit_audit.alarms import Alarms
    from remit_audit.settings import AuditSettings
    from remit_chassis.service import Service

REPUBLISH_SECONDS = 30.0


class Consumer:
    """Holds a follower and a watch for each tenant whose ledger could be opened."""

    def __init__(self, service: Service, settings: AuditSettings, key: Ed25519PrivateKey, alarms: Alarms) -> None:
        self.followers: dict[str, Follower] = {}
        self.watches: dict[str, Watch] = {}
        self.on_follow: list[Callable[[Follower], None]] = []
        self._service = service
        self._settings = settings
        self._key = key
        self._alarms = alarms
        self._refused: dict[str, str] = {}
        self._asking: set[tuple[str, str, int]] = set()
        self._looked = False
        self._finding = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to follow and to watch."""
        self.spawn(self._repeat(self._settings.discover_seconds, self.discover))
        self.spawn(self._repeat(self._settings.heads_seconds, self._compare_heads))

    def spawn(self, work: Awaitable[None]) -> None:
        """A task that ends before the ledgers are closed."""
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(self._service.spawn(work))

    async def stop(self) -> None:
        """End every task, then close the ledgers."""
        running = {task for task in self._tasks if not task.done()}
        while running:  # Python 3.11's wait_for, which nats-py uses, loses a cancellation that comes with the answer
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=0.2)
        for follower in self.followers.values():
            await asyncio.to_thread(follower.ledger.close)

    async def discover(self) -> None:
        """Follow streams that are new, and look at all of them; raises Unavailable."""
        tenants = set(subjects.tenants_of_streams(await stream_names(self._service.nc)))
        tenants |= {path.stem for path in self._settings.ledger_dir.glob("*.sqlite")}
        for tenant in sorted(filter(is_label, tenants)):
            await self._follow(tenant)
        for tenant, watch in list(self.watches.items()):
            await watch.look_at_stream()
            await self.followers[tenant].ask_for_gaps()
        self._looked = True
        await self._alarms.retry()

    async def follow(self, tenant: str) -> bool:
        """Whether the tenant's stream is followed; one that was made just now is, from here on. Raises Unavailable."""
        if tenant not in self.followers and await stream_info(self._service.nc, subjects.events_stream(tenant)):
            await self._follow(tenant)
        return tenant in self.followers

    async def begin(self, tenant: str) -> TenantFollowed:
        """Follow a tenant whose stream was made just now, its ledger on disk; raises Absent, Tampered, Unavailable."""
        followed = await self.follow(tenant)
        self._require_taking(tenant)
        if not followed:
            raise Absent(f"there is no stream {subjects.events_stream(tenant)} to follow")
        return TenantFollowed(tenant=tenant, entries=self.followers[tenant].ledger.size)

    async def ready(self) -> str:
        """For readiness: every stream was looked at and is fit, and every ledger takes events."""
        if not self._looked:
            raise Unavailable("the streams were not looked at yet")
        for tenant, reason in self._refused.items():
            raise Tampered(f"the ledger of {tenant} takes no events: {reason}")
        for tenant, follower in self.followers.items():
            if fault := follower.refused or self.watches[tenant].unfit:
                raise Tampered(f"{tenant}: {fault}")
        return f"{len(self.followers)} streams are fit and followed"

    async def pending(self, tenant: str, *, within_seconds: float) -> int:
        """Wait until the ledger has what other services have stored by now; returns how many events it lacks.

        Raises Tampered when the ledger takes no events: what it lacks is not on its way then.
        """
        followed = await self.follow(tenant)
        self._require_taking(tenant)
        if not followed:
            return 0
        heads = await self.watches[tenant].heads()
        heads.pop(self._service.name, None)
        follower = self.followers[tenant]
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                for service, head in heads.items():
                    await follower.reaches(service, head.number)
        self._require_taking(tenant)  # it may have refused what came meanwhile
        return sum(max(0, head.number - follower.ledger.head(service)[0]) for service, head in heads.items())

    def refused(self, tenant: str) -> str:
        """Why nothing is taken into the tenant's ledger; empty while events are taken, and where there is no stream."""
        follower = self.followers.get(tenant)
        return follower.refused if follower else self._refused.get(tenant, "")

    def _require_taking(self, tenant: str) -> None:
        if reason := self.refused(tenant):
            raise Tampered(f"the ledger of {tenant} takes no events: {reason}", code="tampered.ledger")

    async def _follow(self, tenant: str) -> None:
        async with self._finding:
            if tenant not in self.followers.keys() | self._refused.keys():
                await self._open(tenant)

    async def _open(self, tenant: str) -> None:
        path = self._settings.ledger_dir / f"{tenant}.sqlite"
        # A message is acknowledged when the ledger has it on disk, so an empty one beside acknowledged ones was lost.
        consumer = await ask_jetstream(self._service.nc, f"CONSUMER.INFO.{subjects.events_stream(tenant)}.{DURABLE}")
        acknowledged = int(consumer.get("ack_floor", {}).get("stream_seq", 0))
        try:
            ledger = await asyncio.to_thread(Ledger, path, tenant, self._key)
        except Tampered as fault:
            self._refused[tenant] = fault.reason
            await self._alarms.raise_(tenant, Finding("ledger", "checkpoint.contradicted", fault.reason))
            return
        if acknowledged and ledger.size == 0:
            reason = f"it is empty, and had {acknowledged} messages of the stream: it was lost, and is filled again"
            await self._alarms.raise_(tenant, Finding("ledger", "file.damaged", reason))
        follower = Follower(
            self._service.nc,
            ledger,
            raise_alarm=self._alarms.raise_,
            ask_again=self._ask_again,
            missing_seconds=self._settings.missing_seconds,
        )
        self.followers[tenant] = follower
        self.watches[tenant] = Watch(
            self._service,
            follower,
            self._alarms,
            silent_seconds=self._settings.silent_seconds,
            missing_seconds=self._settings.missing_seconds,
        )
        self.spawn(follower.run())
        for hook in self.on_follow:
            hook(follower)
        structlog.get_logger().info("audit.following", tenant=tenant, entries=ledger.size)

    async def _compare_heads(self) -> None:
        for watch in list(self.watches.values()):
            await watch.compare_heads()

    def _ask_again(self, tenant: str, service: str, first: int, last: int) -> None:
        if (tenant, service, first) not in self._asking:  # a service that hangs is not asked six times for one range
            self._asking.add((tenant, service, first))
            self.spawn(self._republish(tenant, service, first, last))

    async def _republish(self, tenant: str, service: str, first: int, last: int) -> None:
        try:
            for start in range(first, last + 1, MAX_REPUBLISHED):
                again = Republish(first=start, last=min(last, start + MAX_REPUBLISHED - 1))
                await self._service.ask(
                    tenant, SYSTEM_USER, service, "republish", again, timeout_seconds=REPUBLISH_SECONDS
                )
        except Refusal as refusal:
            structlog.get_logger().warning(
                "audit.not_republished", tenant=tenant, origin=service, reason=refusal.reason
            )
        finally:
            self._asking.discard((tenant, service, first))

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except (Refusal, NatsError, OSError) as fault:
                structlog.get_logger().warning("audit.waiting", reason=str(fault)[:300])
            except Exception:  # a bug: the next round may fare better
                structlog.get_logger().exception("audit.failed")
            await asyncio.sleep(seconds)
