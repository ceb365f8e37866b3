"""The files that containers are given: secrets one by one, the bus's configuration, OPA's, and directories for data.

Made once on the machine that deploys; running it again makes what is missing and renders the configuration anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from remit_contracts.subjects import SERVICES
from remit_infra.engines import opa_rules
from remit_infra.files import write_atomically, write_once
from remit_infra.home import Home
from remit_infra.nats import BusServer, render
from remit_infra.secrets import OPA_TOKEN, provision

BUS: Final = BusServer(listen="0.0.0.0:4222", store_dir=Path("/data/js"), monitor_port=8222, sync_interval="always")
"""One node, as docker-compose.yml runs it; a cluster's members add `tls` and `cluster`."""

DATA: Final = ("nats", "postgres", "mongo", "vault", "ledger", *(f"store/{service}" for service in SERVICES))


def deploy(directory: Path, *, bus: BusServer = BUS) -> list[str]:
    """Make or complete the deployment's files in `directory`; returns the names of the secrets that were made."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (*(f"data/{part}" for part in DATA), "nats", "opa", "secrets/postgres", *SHARED):
        (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    home = Home(directory.absolute())
    made = provision(home.secrets, home.public)
    made += _postgres_secrets(home.secrets / "postgres")
    write_atomically(home.bus / "nats.conf", render(bus, home.public_nkeys()).encode())
    rules = opa_rules((home.secrets / OPA_TOKEN).read_text())
    write_atomically(directory / "opa" / "authz.rego", rules.encode())
    return made


SHARED: Final = ("agents", "tools", "sources", "documents")
"""What operators put there for the runtime to read."""


def _postgres_secrets(directory: Path) -> list[str]:
    """A role and a database a service: none can read another's events. Kept with their DSN, as a service reads it."""
    made = []
    for name in ("superuser", *SERVICES):
        role = name.replace("-", "_")
        if write_once(directory / f"{name}.password", os.urandom(24).hex().encode()):
            made.append(f"postgres/{name}.password")
        password = (directory / f"{name}.password").read_text()
        if name != "superuser":
            dsn = f"postgresql://{role}:{password}@postgres:5432/{role}"
            write_atomically(directory / f"{name}.dsn", dsn.encode())
    return made
