"""Message in, one use case, answer out."""

from __future__ import annotations

from typing import Any

from remit_chassis.service import Service
from remit_contracts.identity import Caller
from remit_contracts.messages import Command, Nothing
from remit_policy.application import Decisions

MAX_RECORDED_BYTES = 128 * 1024


class Redecide(Command):
    """Decide a recorded engine input again; with `bundle_digest`, only if that bundle is the active one."""

    input: dict[str, Any]
    bundle_digest: str | None = None


def register(service: Service, decisions: Decisions) -> None:
    """Add every verb of the policy service."""
    service.hot_rpc("decide", decisions.decide)

    @service.rpc("info", Nothing)
    async def info(_: Nothing, caller: Caller) -> dict[str, Any]:
        return {"engine": decisions.engine_name, "bundle_digest": decisions.bundle_digest}

    @service.rpc("redecide", Redecide, max_bytes=MAX_RECORDED_BYTES)
    async def redecide(command: Redecide, caller: Caller) -> dict[str, Any]:
        return await decisions.redecide(command.input, command.bundle_digest, caller)
