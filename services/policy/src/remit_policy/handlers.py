"""Message in, one use case, answer out."""

from __future__ import annotations

from remit_chassis.service import Service
from remit_contracts.decisions import PolicyInfo, Redecide, Redecided
from remit_contracts.identity import Caller
from remit_contracts.messages import Nothing
from remit_policy.application import Decisions

MAX_RECORDED_BYTES = 128 * 1024
"""Of a replay's command: a recorded input may have as much as the engine takes."""


def register(service: Service, decisions: Decisions) -> None:
    """Add every verb of the policy service."""
    service.hot_rpc("decide", decisions.decide)

    @service.rpc("info", Nothing)
    async def info(_: Nothing, caller: Caller) -> PolicyInfo:
        return PolicyInfo(engine=decisions.engine_name, bundle_digest=decisions.bundle_digest)

    @service.rpc("redecide", Redecide, max_bytes=MAX_RECORDED_BYTES)
    async def redecide(command: Redecide, caller: Caller) -> Redecided:
        return await decisions.redecide(command, caller)
