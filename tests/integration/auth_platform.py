"""The auth service as a whole, on a real bus, with an installer and a broker's keys: what its tests share."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from pathlib import Path
from typing import Any

import orjson
from fixtures_nats import Bus
from nacl.public import PrivateKey, SealedBox
from nats.aio.client import Client
from nats.aio.msg import Msg

from remit_auth.__main__ import build
from remit_auth.settings import AuthSettings
from remit_chassis.service import Service
from remit_chassis.settings import read_hex_secret
from remit_chassis.vaultfile import VaultFile
from remit_contracts import subjects
from remit_infra.streams import ensure_stream

ADMINISTRATOR = {"inherits": ["reader"], "permissions": [{"action": "role.*", "type": "role", "id": "*"}]}


class Keys:
    """Stands in the credential broker's place on the bus: keys of a real vault, sealed to the service's box key."""

    def __init__(self, home: Path) -> None:
        self._vault = VaultFile(home / "vault" / "vault.sqlite", bytes(32))
        self._box = SealedBox(PrivateKey(read_hex_secret(home / "secrets" / "box" / "auth.key")).public_key)

    async def answer(self, message: Msg) -> None:
        _, tenant, user, *_ = message.subject.split(".")
        sealed = self._box.encrypt(self._vault.user_key(tenant, user))
        await message.respond(orjson.dumps({"sealed_key": b64encode(sealed).decode()}))


class Platform:
    """The bus, the service and an installer's connection."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.settings = AuthSettings(
            home=bus.home.path, nats_url=bus.url, nats_ca_file=bus.tls.authorities if bus.tls else None
        )
        self.service: Service
        self.installer: Client
        self._broker: Client

    async def open(self) -> None:
        self.installer = await self.bus.connect_as("installer")
        for stream in ("RUNS", *map(subjects.events_stream, ("platform", "acme", "globex"))):
            await ensure_stream(self.installer, stream)
        await self.open_keys()
        await self.start()
        await self.ready()

    async def open_keys(self) -> None:
        self._broker = await self.bus.connect_as("credential-broker")
        await self._broker.subscribe(
            subjects.any_request("rpc", "credential-broker", "user-key"), cb=Keys(self.bus.home.path).answer
        )
        await self._broker.flush()

    async def close_keys(self) -> None:
        await self._broker.close()

    async def start(self) -> None:
        self.service = build(self.settings)
        await self.service.start()

    async def ready(self) -> None:
        async with asyncio.timeout(20):
            while not (await self.service.health()).ready:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        await self.service.shut_down()
        await self.close_keys()
        await self.installer.close()

    async def ask(self, verb: str, payload: dict[str, Any], *, tenant: str = "acme", user: str = "system") -> Any:
        subject = subjects.rpc(tenant, user, "auth", verb)
        return orjson.loads((await self.installer.request(subject, orjson.dumps(payload), timeout=10)).data)

    async def ok(self, verb: str, payload: dict[str, Any], **whom: str) -> Any:
        answer = await self.ask(verb, payload, **whom)
        assert "error" not in answer, answer
        return answer

    async def seed(self) -> None:
        await self.ok("create-tenant", {"name": "Acme"})
        await self.ok("define-role", {"name": "reader", "inherits": [], "permissions": []})
        await self.ok("define-role", {"name": "administrator", **ADMINISTRATOR})
        await self.ok("protect-fields", {"source": "sql", "fields": ["tailnum"]})
        await self.ok("register-user", {"handle": "ann", "roles": ["administrator"], "email": "ann@acme.test"})

    async def user(self, handle: str = "ann", *, tenant: str = "acme") -> str:
        found: str = (await self.ok("resolve", {"handle": handle}, tenant=tenant))["user"]
        return found

    async def client(
        self, token: str, session: str, *, handle: str = "ann", tenant: str = "acme", **options: Any
    ) -> Client:
        prefix = f"_INBOX.{tenant}.{await self.user(handle, tenant=tenant)}.{session}"
        return await self.bus.connect(token=token, inbox_prefix=prefix, **options)
