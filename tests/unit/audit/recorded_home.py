"""A home as a stopped platform leaves it: real stores of two services, their ledger, the vault and the keys."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from remit_agent_runtime.domain import Run
from remit_audit.ledger import Ledger
from remit_auth.domain import User
from remit_chassis.eventstore.chain import Chain
from remit_chassis.eventstore.recorders import open_sqlite
from remit_chassis.eventstore.store import EventStore
from remit_chassis.keyring import VaultUserKeys
from remit_chassis.permits import PermitSigner
from remit_chassis.settings import read_hex_secret
from remit_chassis.vaultfile import VaultFile, load_or_create_master_key
from remit_contracts.permits import PermitClaims, args_digest
from remit_infra.home import Home

AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
ANALYST, READER = "u-analyst1", "u-reader1"


class Recorder:
    """Writes what the services would write, in the same forms."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.vault = VaultFile(
            home.path / "vault" / "vault.sqlite", load_or_create_master_key(home.secrets / "master.key")
        )
        self.signer = PermitSigner(read_hex_secret(home.secrets / "permit.key"))
        self._keys = VaultUserKeys(self.vault)
        self._readers = ThreadPoolExecutor(2)
        self._stores: dict[tuple[str, str], EventStore] = {}

    def store(self, service: str, tenant: str) -> EventStore:
        chain = Chain(service, tenant)
        if chain not in self._stores:
            path = self.home.path / "store" / service / f"{tenant}.sqlite"
            self._stores[chain] = EventStore(
                chain, partial(open_sqlite, path, chain), self._keys, clock=lambda: AT, readers=self._readers
            )
        return self._stores[chain]

    async def register(self, tenant: str, user: str, handle: str) -> None:
        await self.store("auth", tenant).save(
            User.register(tenant_id=tenant, user_id=user, handle=handle, email=None, name=None, at=AT), user=user
        )

    async def run(self, tenant: str, user: str, number: int, forged: Mapping[str, Any] = MappingProxyType({})) -> None:
        """A run with one tool call; `forged` replaces claims of its permit, or the permit itself."""
        run = accepted(user, number)
        run.start(at=AT)
        authorize(run, tenant, user, self.signer, forged)
        complete(run)
        run.complete(answer=f"answer {number}", cpu_seconds=0.1, at=AT)
        await self.store("agent-runtime", tenant).save(run, user=user)

    async def witness(self, tenant: str) -> None:
        """Bring the ledger up to the stores."""
        key = Ed25519PrivateKey.from_private_bytes(read_hex_secret(self.home.secrets / "ledger.key"))
        ledger = Ledger(self.home.path / "ledger" / f"{tenant}.sqlite", tenant, key)
        for (service, whose), store in self._stores.items():
            if whose == tenant:
                receipt = ledger.receive(await store.read(ledger.head(service)[0] + 1, 10_000))
                assert receipt.findings == []
        ledger.close()

    async def close(self) -> None:
        for store in self._stores.values():
            await store.close()
        self.vault.close()
        self._readers.shutdown()


def accepted(user: str, number: int) -> Run:
    return Run.accept(
        run_id=UUID(int=number),
        user=user,
        session="s-1",
        conversation="c-1",
        prompt=f"question {number}",
        idempotency_key="",
        agent={"name": "analyst", "limits": {"model_calls": 5, "tool_calls": 5, "seconds": 60}},
        bindings={"tools": {"sql": "digest"}},
        decision={"decision_id": f"d-{number}"},
        at=AT,
    )


def authorize(
    run: Run, tenant: str, user: str, signer: PermitSigner, forged: Mapping[str, Any] = MappingProxyType({})
) -> None:
    token = forged.get("token")
    arguments = {"query": "select 1"}
    claims = {
        "jti": f"d-{run.id.hex}",
        "tenant": tenant,
        "user": user,
        "session": "s-1",
        "run": run.id.hex,
        "ordinal": 1,
        "tool": "sql",
        "args_digest": args_digest(arguments),
        "bundle_digest": "b",
        "data_revision": "1",
        "input_digest": "i",
        "iat": AT.timestamp(),
        "exp": AT.timestamp() + 15,
        **{name: value for name, value in forged.items() if name != "token"},
    }
    run.authorize_tool_call(
        ordinal=1,
        tool="sql",
        arguments=arguments,
        args_digest=args_digest(arguments),
        decision={"decision_id": claims["jti"]},
        permit=signer.sign(PermitClaims(**claims)) if token is None else token,
        at=AT,
    )


def complete(run: Run) -> None:
    run.complete_tool_call(
        ordinal=1,
        ok=True,
        result=[["N1", 1]],
        error=None,
        withheld={},
        lease_id="",
        cpu_seconds=0.01,
        wall_seconds=0.01,
        at=AT,
    )


async def recorded_home(
    path: Path, tenants: Sequence[str] = ("acme", "globex"), runs: int = 6, *, killed_copy: Path | None = None
) -> Home:
    """Every tenant with two users and `runs` runs of each. `killed_copy` gets the home as a kill would have left it."""
    home = Home.create(path)
    recorder = Recorder(home)
    for tenant in tenants:
        await recorder.register(tenant, ANALYST, "analyst")
        await recorder.register(tenant, READER, "reader")
        for number in range(runs):
            await recorder.run(tenant, ANALYST, 2 * number + 1)
            await recorder.run(tenant, READER, 2 * number + 2)
        await recorder.witness(tenant)
    if killed_copy:
        shutil.copytree(home.path, killed_copy)
    await recorder.close()
    return home
