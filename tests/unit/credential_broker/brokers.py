"""A broker without a bus: a real vault, real event stores (SQLite), a policy key of the test's own, a clock to turn.

`canary` is the secret of every connection that a test does not give another one.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from nacl.public import Box, PrivateKey, PublicKey, SealedBox

from remit_chassis.eventstore.chain import Chain, Recorder
from remit_chassis.eventstore.recorders import open_sqlite
from remit_chassis.eventstore.store import EventStore
from remit_chassis.keyring import VaultUserKeys
from remit_chassis.permits import PermitSigner, PermitVerifier
from remit_contracts.connections import AddConnection
from remit_contracts.errors import Denied
from remit_contracts.fast_leases import LeaseAnswer, LeaseContent, LeaseRequest
from remit_contracts.identity import Caller
from remit_contracts.leases import CONNECTION_SCOPE
from remit_contracts.permits import PermitClaims, args_digest
from remit_credential_broker.application import Connections
from remit_credential_broker.history import LeaseHistory
from remit_credential_broker.lease_records import LeaseRecords
from remit_credential_broker.leasing import Leasing
from remit_credential_broker.live_leases import LiveLeases
from remit_credential_broker.probe import ProbeResult
from remit_credential_broker.projections import ConnectionBook
from remit_credential_broker.read_back import ReadBack
from remit_credential_broker.sealing import Inbound, ToolHostBox
from remit_credential_broker.used_permits import UsedPermits
from remit_credential_broker.vault import Secrets, open_vault

START = datetime(2030, 1, 1, 9, 30, tzinfo=UTC)
ALICE = Caller("acme", "u-alice", "s-1")
BOB = Caller("acme", "u-bob", "s-2")
GUS = Caller("globex", "u-gus", "s-3")
RUN = "a" * 32
CANARY = "sk-canary-7f3a9d52c1"


class Clocks:
    """Both clocks; `now` can be set, `passed` only grows."""

    def __init__(self) -> None:
        self.now = START
        self.passed = 1_000.0

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.passed += seconds


class Broker:
    """One process's worth, over files in `home` that outlive it."""

    def __init__(self, home: Path, clocks: Clocks) -> None:
        self.home = home
        self.clocks = clocks
        self.policy = PermitSigner(b"p" * 32)
        self.tool_host = PrivateKey(b"h" * 32)
        self.vault = open_vault(home / "vault.sqlite", bytes(32))
        self.user_keys = VaultUserKeys(self.vault, monotonic=lambda: clocks.passed)
        self.secrets = Secrets(self.vault, monotonic=lambda: clocks.passed)
        self.book, self.used = ConnectionBook(), UsedPermits()
        self.live = LiveLeases(lambda: clocks.passed)
        self.denied: set[str] = set()
        self.decided: list[tuple[str, str, str]] = []
        self.probes: list[tuple[str, str, str]] = []
        self.probe_result = ProbeResult(200, None)
        self.open_recorder = open_sqlite
        self._readers = ThreadPoolExecutor(2)
        self.stores: dict[str, EventStore] = {}
        self.lease_records = LeaseRecords(store_of=self.store_of, live=self.live, clock=self._clock)
        self.leasing = Leasing(
            user_keys=self.user_keys,
            book=self.book,
            secrets=self.secrets,
            verifier=PermitVerifier(self.policy.public_key),
            box=ToolHostBox(b"b" * 32, bytes(self.tool_host.public_key)),
            used=self.used,
            records=self.lease_records,
            ttl_seconds=30.0,
            clock=self._clock,
            monotonic=lambda: clocks.passed,
        )
        self.connections = Connections(
            store_of=self.store_of,
            book=self.book,
            secrets=self.secrets,
            inbound=Inbound(b"b" * 32),
            decide=self._decide,
            probe=self._probe,
            revoke_leases=self.lease_records.revoke_on,
            clock=self._clock,
            new_id=uuid4,
        )
        self.history = LeaseHistory(self.store_of, self.lease_records, self.live)

    async def start(self) -> None:
        reading = ReadBack(
            book=self.book,
            used=self.used,
            live=self.live,
            secrets=self.secrets,
            clock=self._clock,
            monotonic=lambda: self.clocks.passed,
        )
        tenants = [path.stem for path in (self.home / "store").glob("*.sqlite")]
        self.leasing.open(await reading.run(tenants, self.store_of))

    async def stop(self) -> None:
        await self.lease_records.make_all_good()
        for store in self.stores.values():
            await store.close()
        self._readers.shutdown()
        self.vault.close()

    def store_of(self, tenant: str) -> EventStore:
        if tenant not in self.stores:
            chain = Chain("credential-broker", tenant)
            self.stores[tenant] = EventStore(
                chain, partial(self._recorder, chain), self.user_keys, clock=self._clock, readers=self._readers
            )
        return self.stores[tenant]

    # -- what others do --------------------------------------------------------------------------------------------

    def seal(self, secret: str) -> str:
        """As a client seals it."""
        box = SealedBox(PublicKey(bytes.fromhex(self.connections.sealing_key)))
        return base64.b64encode(box.encrypt(secret.encode())).decode()

    async def connect(self, caller: Caller = ALICE, name: str = "desk", **changes: Any) -> Any:
        """Add a connection; `secret` among the changes is sealed here."""
        told = {"name": name, "kind": "bearer", "hosts": ("127.0.0.1:8080",), "scopes": ("read", "write")}
        told["sealed_secret"] = self.seal(changes.pop("secret", CANARY))
        return await self.connections.add(AddConnection(**{**told, **changes}), caller)

    def claims(self, caller: Caller = ALICE, connection: str = "desk", **changes: Any) -> PermitClaims:
        """What policy would state of a call that begins now."""
        now = self.clocks.now.timestamp()
        told = {
            "jti": uuid4().hex,
            "tenant": caller.tenant,
            "user": caller.user,
            "session": caller.session,
            "run": RUN,
            "ordinal": 1,
            "tool": "weather-desk",
            "args_digest": args_digest({}),
            "scopes": (CONNECTION_SCOPE + connection, "read"),
            "bundle_digest": "d",
            "data_revision": "1",
            "input_digest": "i",
            "iat": now,
            "exp": now + 15,
        }
        return PermitClaims(**{**told, **changes})

    def permit(self, caller: Caller = ALICE, connection: str = "desk", **changes: Any) -> str:
        """A permit of policy's for a call that begins now."""
        return self.policy.sign(self.claims(caller, connection, **changes))

    async def lease(self, permit: str, caller: Caller = ALICE, **changes: Any) -> LeaseAnswer:
        """Ask as the runtime does."""
        told = {"permit": permit, "tool": "weather-desk", "connection": "desk", "run": RUN}
        request = LeaseRequest(**{**told, **changes})
        return LeaseAnswer.from_bytes(await self.leasing.lease(request.to_bytes(), Caller(caller.tenant, caller.user)))

    def opened(self, answer: LeaseAnswer) -> LeaseContent:
        """As the tool host opens it."""
        box = Box(self.tool_host, PublicKey(bytes.fromhex(self.connections.sealing_key)))
        return LeaseContent.from_bytes(box.decrypt(base64.b64decode(answer.sealed)))

    async def events(self, tenant: str = "acme", topic: str = "broker.") -> list[Any]:
        """Decoded events whose topic begins so."""
        await self.lease_records.settled()
        store = self.store_of(tenant)
        return [await store.decode(each) for each in await store.read(1, 10_000) if each.topic.startswith(topic)]

    async def refusals(self, tenant: str = "acme") -> list[str]:
        """Codes of the refused leases, as recorded."""
        return [event.code for event in await self.events(tenant, "broker.Lease.Refused")]

    def _recorder(self, chain: Chain) -> Recorder:
        (self.home / "store").mkdir(exist_ok=True)
        return self.open_recorder(self.home / "store" / f"{chain.tenant}.sqlite", chain)

    def _clock(self) -> datetime:
        return self.clocks.now

    async def _decide(self, caller: Caller, action: str, name: str) -> dict[str, Any]:
        self.decided.append((caller.user, action, name))
        if action in self.denied:
            raise Denied(f"{caller.user} may not", decision_id="d-0")
        return {"decision_id": f"d-{len(self.decided)}", "decision": True, "obligations": []}

    async def _probe(self, host: str, path: str, secret: str) -> ProbeResult:
        self.probes.append((host, path, secret))
        return self.probe_result


@asynccontextmanager
async def running(home: Path, clocks: Clocks) -> AsyncIterator[Broker]:
    """A broker that has started; ended in order."""
    broker = Broker(home, clocks)
    await broker.start()
    clocks.pass_time(1)
    try:
        yield broker
    finally:
        await broker.stop()
