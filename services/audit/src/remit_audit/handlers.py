"""Messages in, one use case, answers out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remit_audit.application import Trails
from remit_audit.checking import CopyCheck
from remit_contracts.identity import Caller
from remit_contracts.trails import (
    AuditReport,
    CheckCopies,
    CheckpointShown,
    FollowTenant,
    ProofBundle,
    ProveEntry,
    ShowCheckpoint,
    ShowTrail,
    TenantFollowed,
    TrailPage,
    TrailVerified,
    VerifyTrail,
)

if TYPE_CHECKING:
    from remit_audit.consumer import Consumer
    from remit_chassis.service import Service


def register(service: Service, trails: Trails, check: CopyCheck, consumer: Consumer) -> None:
    """Add what the audit service answers."""

    @service.command("show-trail", ShowTrail)
    async def show_trail(command: ShowTrail, caller: Caller) -> TrailPage:
        return await trails.show(command, caller)

    @service.command("verify-trail", VerifyTrail)
    async def verify_trail(command: VerifyTrail, caller: Caller) -> TrailVerified:
        return await trails.verify(command, caller)

    @service.command("prove-entry", ProveEntry)
    async def prove_entry(command: ProveEntry, caller: Caller) -> ProofBundle:
        return await trails.prove(command, caller)

    @service.command("checkpoint", ShowCheckpoint)
    async def checkpoint(command: ShowCheckpoint, caller: Caller) -> CheckpointShown:
        return await trails.checkpoint(command, caller)

    @service.rpc("follow", FollowTenant)
    async def follow(_: FollowTenant, caller: Caller) -> TenantFollowed:
        return await consumer.begin(caller.tenant)

    @service.rpc("check", CheckCopies)
    async def check_copies(command: CheckCopies, caller: Caller) -> AuditReport:
        return await check.run(command)
