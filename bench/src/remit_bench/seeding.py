"""The tenant that is measured: users with the role of an analyst, a tool, and a connection that all of them share."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import orjson
from nacl.public import PublicKey, SealedBox

from remit.cli.installation import Installer
from remit.cli.seeding import create_tenant
from remit.client import connect
from remit_contracts.identity import Handle
from remit_infra.home import Home
from remit_infra.streams import connect_installer

TENANT = "bench"
TOOL = "miles-to-km"
CONNECTION = "weather-desk"
LOOPS = 64
"""Calls in flight under load, each of a user of its own."""
LOUD, QUIET = "loud", "quiet"
BROKER = "credential-broker"

TOOLS = f"""tools:
  - {{id: {TOOL}, kind: function, entry: miles_to_km}}
"""


async def seed(home: Path, url: str) -> list[str]:
    """Make the tenant; returns the ids of its users, `LOOPS` of them and then the loud and the quiet one."""
    (home / "tools" / f"{TENANT}.yaml").write_text(TOOLS)
    nc = await connect_installer(Home(home), url)
    try:
        office = Installer(nc)
        await create_tenant(office, TENANT)
        await _register(office, "administrator", "administrator")
        users = [await _register(office, f"user-{number}", "analyst") for number in range(LOOPS)]
        users += [await _register(office, handle, "analyst") for handle in (LOUD, QUIET)]
        token = await office.token(Handle.parse(f"{TENANT}/administrator"))
    finally:
        await nc.close()
    await _share_connection(url, token)
    (home.parent / "users.json").write_bytes(orjson.dumps(users))
    return users


async def token_of(home: Path, url: str, handle: str) -> str:
    """A session token of one of the users."""
    nc = await connect_installer(Home(home), url)
    try:
        return await Installer(nc).token(Handle.parse(f"{TENANT}/{handle}"))
    finally:
        await nc.close()


async def _register(office: Installer, handle: str, role: str) -> str:
    row: dict[str, Any] = await office.ask(TENANT, "auth", "register-user", {"handle": handle, "roles": [role]})
    return str(row["user"])


async def _share_connection(url: str, token: str) -> None:
    async with connect(url, token=token) as client:
        key = (await client.command(BROKER, "sealing-key"))["public_key"]
        sealed = SealedBox(PublicKey(bytes.fromhex(key))).encrypt(b"a-secret-that-is-never-sent-anywhere")
        connection = {
            "name": CONNECTION,
            "kind": "bearer",
            "sealed_secret": b64encode(sealed).decode(),
            "hosts": ["127.0.0.1:9"],
            "scopes": ["conditions.read"],
            "shared": True,
        }
        await client.command(BROKER, "add-connection", connection)
