"""The secrets of an installation: made once, each in a file of its own with mode 0600, and never overwritten."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import orjson
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from remit_chassis.nkeys import SignKey, XKey
from remit_chassis.settings import read_hex_secret
from remit_contracts.subjects import SERVICES
from remit_infra.files import write_atomically, write_once
from remit_infra.nats import CALLOUT_ISSUER, CALLOUT_XKEY
from remit_infra.permissions import table

OPA_TOKEN: Final = "opa.token"  # noqa: S105 - the name of a file
"""What the policy service shows to its OPA server."""

SIGNING: Final = ("issuer", "permit", "ledger")
"""Ed25519 seeds of the development token issuer, of policy's permits and of audit's checkpoints."""

SEALING: Final = ("tool-host", "broker")
"""X25519 seeds: leases are sealed to the tool host, users' secrets to the broker."""


def _random() -> str:
    return os.urandom(32).hex()


SECRETS: Final[dict[str, Callable[[], str]]] = {
    "master.key": _random,
    OPA_TOKEN: _random,
    **{f"{name}.key": _random for name in (*SIGNING, *SEALING)},
    f"{CALLOUT_ISSUER}.nk": lambda: SignKey.create("account").seed(),
    f"{CALLOUT_XKEY}.nk": lambda: XKey.create().seed(),
    **{f"nkeys/{user}.nk": lambda: SignKey.create("user").seed() for user in table()},
    **{f"relay/{service}.key": _random for service in SERVICES},
    **{f"box/{service}.key": _random for service in SERVICES},
}
"""Path below `secrets/` -> what makes its text.

A service's relay key signs the ids of its messages; users' keys are sealed to its box key.
"""


def provision(secrets: Path, public: Path) -> list[str]:
    """Make what is missing and publish the public halves; returns the names of what was made."""
    for directory in (secrets, *(secrets / name for name in ("nkeys", "relay", "box"))):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
    for directory in (public, public / "box"):
        directory.mkdir(mode=0o700, exist_ok=True)
    made = [name for name, make in SECRETS.items() if write_once(secrets / name, make().encode())]
    for name in SIGNING:
        _publish(public / f"{name}.pub", bytes(SigningKey(read_hex_secret(secrets / f"{name}.key")).verify_key))
    for name in (*SEALING, *(f"box/{service}" for service in SERVICES)):
        _publish(public / f"{name}.pub", bytes(PrivateKey(read_hex_secret(secrets / f"{name}.key")).public_key))
    nkeys = {user: SignKey.read(secrets / "nkeys" / f"{user}.nk").public for user in table()}
    nkeys[CALLOUT_ISSUER] = SignKey.read(secrets / f"{CALLOUT_ISSUER}.nk").public
    nkeys[CALLOUT_XKEY] = XKey.read(secrets / f"{CALLOUT_XKEY}.nk").public
    write_atomically(public / "nkeys.json", orjson.dumps(nkeys, option=orjson.OPT_INDENT_2))
    return made


def _publish(path: Path, key: bytes) -> None:
    write_atomically(path, key.hex().encode())
