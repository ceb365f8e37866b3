"""Accounts on real event stores (SQLite, keys from a real vault) without a bus: what this service's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path

from remit_auth.application import Accounts
from remit_auth.cutting import Cut
from remit_auth.issuer import DevelopmentIssuer
from remit_auth.projections import Directory
from remit_auth.verifier import Verifier
from remit_chassis.eventstore.chain import Chain
from remit_chassis.eventstore.recorders import open_sqlite
from remit_chassis.eventstore.store import EventStore
from remit_chassis.keyring import VaultUserKeys
from remit_chassis.vaultfile import VaultFile
from remit_contracts.errors import Unavailable

SEED = bytes(range(32))
START = datetime(2030, 1, 1, 9, 30, 0, 250_000, tzinfo=UTC)


class Installation:
    """One service's worth; `notices` are the (tenant, user, revision) that were told, `cut_off` what disabling calls.

    While `bus_is_away` nobody can be told anything."""

    def __init__(self, home: Path, *, clock: Callable[[], datetime] | None = None) -> None:
        self.now = START
        self.clock = clock or (lambda: self.now)
        self.notices: list[tuple[str, str, int]] = []
        self.cut_off: Callable[[str], Awaitable[Cut]] = nobody_is_connected
        self.bus_is_away = False
        self.vault = VaultFile(home / "vault.sqlite", bytes(32))
        self.issuer = DevelopmentIssuer(SEED, oidc_issuer=None)
        self.verifier = Verifier(self.issuer.public_key)
        self._home = home
        self._readers = ThreadPoolExecutor(2)
        self._stores: dict[str, EventStore] = {}
        self._serial = count(1)
        self.directory, self.accounts = self.restarted()
        self.directory.complete = True

    def restarted(self) -> tuple[Directory, Accounts]:
        """An empty directory, and use cases that read what is recorded into it."""
        directory = Directory()
        accounts = Accounts(
            store_of=self.store_of,
            directory=directory,
            issuer=self.issuer,
            notify=self._notify,
            cut_off=self._cut_off,
            clock=self.clock,
            entropy=lambda length: next(self._serial).to_bytes(length, "big"),
        )
        return directory, accounts

    def store_of(self, tenant: str) -> EventStore:
        if tenant not in self._stores:
            chain = Chain("auth", tenant)
            self._stores[tenant] = EventStore(
                chain,
                partial(open_sqlite, self._home / f"{tenant}.sqlite", chain),
                VaultUserKeys(self.vault),
                clock=self.clock,
                readers=self._readers,
            )
        return self._stores[tenant]

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def acme(self) -> None:
        """A tenant with reader <- analyst <- administrator, and the user `ann`, an analyst."""
        await self.accounts.create_tenant(tenant="acme", name="Acme")
        for name, inherits in (("reader", []), ("analyst", ["reader"]), ("administrator", ["analyst"])):
            await self.accounts.define_role(tenant="acme", name=name, inherits=inherits, permissions=[])
        await self.accounts.register_user(
            tenant="acme", handle="ann", email="ann@acme.test", name="Ann Example", roles=["analyst"]
        )

    async def close(self) -> None:
        for store in self._stores.values():
            await store.close()
        self._readers.shutdown()
        self.vault.close()

    async def _cut_off(self, tenant: str) -> Cut:
        return await self.cut_off(tenant)

    async def _notify(self, tenant: str, user: str, revision: int) -> None:
        if self.bus_is_away:
            raise Unavailable("the bus is away")
        self.notices.append((tenant, user, revision))


async def nobody_is_connected(_tenant: str) -> Cut:
    """What cutting off says where there is no bus."""
    return Cut(0, 0)


@asynccontextmanager
async def installation(home: Path, *, clock: Callable[[], datetime] | None = None) -> AsyncIterator[Installation]:
    """An installation that is closed again; without a clock, time passes by `pass_time` only."""
    made = Installation(home, clock=clock)
    try:
        yield made
    finally:
        await made.close()
