"""`remit connections`: what tools may reach on a user's behalf. A secret leaves this process sealed to the broker."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from cyclopts import App

from remit.cli.installation import As, Token, as_user
from remit.cli.offline import offline
from remit.cli.output import emit, pairs, say, styled, table
from remit.client import Client
from remit_contracts.connections import MAX_SECRET_BYTES
from remit_contracts.errors import MalformedCommand, PayloadTooLarge

app = App(name="connections", help="Connections: add, list, show, test, revoke.")

BROKER = "credential-broker"


@app.command
def add(
    name: str,
    /,
    *,
    kind: str,
    secret_file: Path,
    host: list[str] | None = None,
    scope: list[str] | None = None,
    shared: bool = False,
    as_: As = None,
    token: Token = None,
) -> None:
    """Add a connection; its secret is read from a file, sealed here, and never shown again.

    Parameters
    ----------
    name
        How tools name it.
    kind
        `bearer`.
    secret_file
        A file that holds the secret and nothing else.
    host
        HOST:PORT that the secret may be sent to; repeatable. Without one: the hosts of the tools in this home that name
        the connection, as they are now. Where there are none either, the secret is kept and lent to nobody.
    scope
        What it allows; repeatable.
    shared
        For every user of the tenant (decided: `connection.share`).
    """
    try:
        secret = secret_file.read_bytes().strip()
    except OSError as fault:
        raise MalformedCommand(f"{secret_file} cannot be read: {fault.strerror}") from None
    if not secret:
        raise MalformedCommand(f"{secret_file} is empty")
    if len(secret) > MAX_SECRET_BYTES:
        raise PayloadTooLarge(f"{secret_file} holds {len(secret)} bytes and a secret may have {MAX_SECRET_BYTES}")

    async def go(client: Client) -> dict[str, Any]:
        from nacl.public import PublicKey, SealedBox

        tenant = client.session.caller.tenant
        hosts = host or offline("tool-hosts", tenant=tenant, connection=name)["hosts"]
        key = (await client.command(BROKER, "sealing-key"))["public_key"]
        sealed = SealedBox(PublicKey(bytes.fromhex(key))).encrypt(secret)
        return await client.command(
            BROKER,
            "add-connection",
            {
                "name": name,
                "kind": kind,
                "sealed_secret": base64.b64encode(sealed).decode(),
                "hosts": hosts,
                "scopes": scope or [],
                "shared": shared,
            },
        )

    answer = as_user(as_, token, go)
    emit(answer, lambda: pairs(answer))
    if not answer["hosts"]:
        say(
            f"no tool of this home names {name}, so its secret may be sent nowhere and is lent to nobody: "
            f"remit connections revoke {name}, then add it with --host HOST:PORT",
            style="yellow",
        )


@app.command(name="list")
def list_(*, as_: As = None, token: Token = None) -> None:
    """One's own connections and the tenant's shared ones."""
    rows = as_user(as_, token, lambda client: client.command(BROKER, "list-connections"))["connections"]
    emit(
        rows,
        lambda: table(
            ["name", "kind", "shared", "status", "hosts"],
            [
                (r["name"], r["kind"], "yes" if r["shared"] else "no", styled(r["status"]), ", ".join(r["hosts"]))
                for r in rows
            ],
        ),
    )


@app.command
def show(name: str, /, *, as_: As = None, token: Token = None) -> None:
    """One connection, without its secret."""
    _one("show-connection", name, as_, token)


@app.command(name="test")
def probe(name: str, /, *, path: str = "/", as_: As = None, token: Token = None) -> int:
    """Ask its first host whether the secret is accepted; exits 1 when it is not, or when nobody answers."""
    answer = as_user(as_, token, lambda client: client.command(BROKER, "test-connection", {"name": name, "path": path}))
    emit(answer, lambda: pairs(answer))
    return 0 if answer["ok"] else 1


@app.command
def revoke(name: str, /, *, as_: As = None, token: Token = None) -> None:
    """Destroy its secret; its leases end."""
    _one("revoke-connection", name, as_, token)


def _one(verb: str, name: str, as_: str | None, token: str | None) -> None:
    answer = as_user(as_, token, lambda client: client.command(BROKER, verb, {"name": name}))
    emit(answer, lambda: pairs(answer))
