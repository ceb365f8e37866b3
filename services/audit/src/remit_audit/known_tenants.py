"""Which tenants a stopped home must hold the record of: what is left tells of a tenant whose files are all gone."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from remit_audit.stopped_vault import StoppedVault
from remit_contracts import subjects
from remit_contracts.errors import Tampered
from remit_contracts.identity import PLATFORM_TENANT, is_label

_STREAMS: Final = "nats/js/jetstream/*/streams"
"""Where the bus keeps its streams, under a directory an account."""
_PREFIX: Final = subjects.events_stream("x").removesuffix("x")


def known_tenants(home: Path, vault: StoppedVault) -> dict[str, list[str]]:
    """Tenant -> what knows it, in words: the vault by its keys, the bus by a stream that has messages.

    The platform itself is left out: it has keys and a stream before it has any event. A vault that cannot be read tells
    of nobody; that it cannot is found elsewhere.
    """
    known: dict[str, list[str]] = {}
    with suppress(Tampered):
        for tenant in vault.tenants():
            known.setdefault(tenant, []).append("its keys in the vault")
    for stream in home.glob(f"{_STREAMS}/{_PREFIX}*"):
        if any(block.stat().st_size for block in stream.glob("msgs/*.blk")):
            known.setdefault(stream.name.removeprefix(_PREFIX), []).append(f"the bus's stream {stream.name}")
    return {tenant: by for tenant, by in known.items() if is_label(tenant) and tenant != PLATFORM_TENANT}
