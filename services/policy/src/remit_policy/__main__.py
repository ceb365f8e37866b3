"""The policy service: constructs everything, then runs until told to stop."""

from __future__ import annotations

from uuid import uuid4

from nats.aio.msg import Msg

from remit_chassis import direct
from remit_chassis.keyring import UserKeys
from remit_chassis.permits import PermitSigner
from remit_chassis.service import Service
from remit_chassis.settings import read_hex_secret
from remit_contracts import subjects
from remit_contracts.identity import Caller
from remit_policy import handlers
from remit_policy.application import Decisions
from remit_policy.directory import ASK_SECONDS, Directory
from remit_policy.domain import Decision
from remit_policy.embedded import EmbeddedEngine
from remit_policy.engine import PolicyEngine
from remit_policy.policies import base_policies
from remit_policy.settings import PolicySettings


def main() -> None:
    """Entry point `policy` of the group `remit.services`."""
    build(PolicySettings()).run()


def build(settings: PolicySettings, *, user_keys: UserKeys | None = None) -> Service:
    """The service, not yet started; raises ValueError for an unreadable key file or a wrong address.

    Users' data keys come from the credential broker unless given.
    """
    service = Service("policy", settings, user_keys=user_keys)
    policies = base_policies()
    engine = engine_for(settings)

    async def ask_auth(tenant: str, user: str, verb: str) -> bytes:
        return await service.ask(tenant, user, "auth", verb, timeout_seconds=ASK_SECONDS)

    async def record(decision: Decision, caller: Caller) -> int:
        return await service.stores.of(caller.tenant).save(decision, user=caller.user)

    directory = Directory(ask_auth)
    decisions = Decisions(
        engine=engine,
        bundle_digest=policies.digest,
        directory=directory,
        signer=PermitSigner(read_hex_secret(settings.permit_key_file)),
        record=record,
        clock=service.clock,
        new_id=uuid4,
    )
    handlers.register(service, decisions)

    def forget(notice: Msg) -> None:
        directory.forget(notice.subject.split(".")[1])

    async def begin() -> None:
        await engine.load(policies, {})
        # Directly, as decisions are: a question read after a notice must not overtake it.
        await direct.subscribe(service.nc, subjects.any_live("directory"), forget)

    service.on_start(begin)
    service.on_stop(engine.close)
    service.check("engine", engine.probe)
    return service


def engine_for(settings: PolicySettings) -> PolicyEngine:
    """The engine that the settings choose."""
    if settings.engine == "opa" or (settings.engine == "auto" and settings.opa_url):
        from remit_policy.opa import OpaEngine

        token = settings.opa_token_file.read_text().strip() if settings.opa_token_file else None
        return OpaEngine(settings.opa_url or "", token=token, deadline_seconds=settings.decision_deadline_seconds)
    return EmbeddedEngine(
        size=settings.embedded_engines,
        deadline_seconds=settings.decision_deadline_seconds,
        memory_limit_bytes=settings.engine_memory_bytes,
    )


if __name__ == "__main__":
    main()
