"""Deciding: look the subject up, ask the engine, sign a permit or record the denial, answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from hashlib import sha256
from uuid import UUID

import msgspec
import orjson
import structlog

from remit_chassis.permits import PermitSigner
from remit_contracts.decisions import Redecide, Redecided
from remit_contracts.errors import Absent, Conflict, MalformedCommand, Refusal, Tampered
from remit_contracts.fast_decisions import AnswerContext, DecisionAnswer, DecisionRequest, Reason
from remit_contracts.identity import Caller
from remit_contracts.permits import TTL_SECONDS, PermitClaims, canonical_json
from remit_policy.decisions import (
    Verdict,
    check_recorded,
    check_subject,
    denial,
    engine_input,
    instant,
    permits_a_call,
    recorded_reasons,
    verdict_of,
)
from remit_policy.directory import Directory
from remit_policy.domain import Decision
from remit_policy.engine import MAX_INPUT_BYTES, EngineError, PolicyEngine
from remit_policy.shaping import TenantData

Record = Callable[[Decision, Caller], Awaitable[object]]
"""Keeps a denied decision; returns when it is on disk, and raises when it is not."""

UNRECORDED = Reason("policy.unrecorded", "the denial could not be recorded")


class Decisions:
    """Decides for one engine; `clock` gives aware UTC, `new_id` a random id."""

    def __init__(
        self,
        *,
        engine: PolicyEngine,
        bundle_digest: str,
        directory: Directory,
        signer: PermitSigner,
        record: Record,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._engine = engine
        self.bundle_digest = bundle_digest
        self._directory = directory
        self._signer = signer
        self._record = record
        self._clock = clock
        self._new_id = new_id
        self._loaded: dict[str, str] = {}
        self._loading = asyncio.Lock()

    @property
    def engine_name(self) -> str:
        """`opa` or `embedded`."""
        return self._engine.name

    async def decide(self, payload: bytes, caller: Caller) -> bytes:
        """A DecisionRequest in, a DecisionAnswer out. A denial is an answer, recorded before it is given.

        Raises MalformedCommand for what is no request, ForeignSubject for one about somebody else, and Tampered when
        auth's record of the tenant is.
        """
        request = DecisionRequest.from_bytes(payload)
        check_subject(request, caller)
        now = self._clock()
        try:
            subject, data = await self._directory.standing(caller.tenant, caller.user)
        except Tampered:  # no denial of this user's: nothing is decided on such a record
            raise
        except Refusal as fault:
            asked = canonical_json(engine_input(request, tenant=caller.tenant, roles=(), active=False, at=now))
            verdict = _not_looked_up(fault)
        else:
            asked = canonical_json(
                engine_input(request, tenant=caller.tenant, roles=subject.roles, active=subject.active, at=now)
            )
            verdict = await self._verdict(caller.tenant, data, asked)
        return (await self._answer(request, caller, asked, verdict, now)).to_bytes()

    async def redecide(self, command: Redecide, caller: Caller) -> Redecided:
        """Decide a recorded input again, with the policies and roles of now. Nothing is recorded and nothing permitted.

        Raises Conflict when another bundle than the one in force is named, ForeignSubject for an input about somebody
        else, Absent or Unavailable when the tenant cannot be looked up.
        """
        if command.bundle_digest not in (None, self.bundle_digest):
            raise Conflict(f"the policies in force are {self.bundle_digest}", code="conflict.bundle")
        check_recorded(command.input, caller)
        data = await self._directory.tenant(caller.tenant)
        verdict = await self._verdict(caller.tenant, data, canonical_json(command.input))
        return Redecided(
            decision=verdict.allow,
            reasons=msgspec.to_builtins(verdict.reasons),
            obligations=msgspec.to_builtins(verdict.obligations),
            bundle_digest=self.bundle_digest,
            data_revision=verdict.revision,
        )

    async def _verdict(self, tenant: str, data: TenantData, asked: bytes) -> Verdict:
        if len(asked) > MAX_INPUT_BYTES:
            raise MalformedCommand(f"the request has {len(asked)} bytes for the engine and may have {MAX_INPUT_BYTES}")
        try:
            if self._loaded.get(tenant) != data.digest:
                await self._load(tenant, data)
            return verdict_of(await self._engine.evaluate(tenant, asked))
        except EngineError as fault:
            structlog.get_logger().warning("engine.undecided", code=fault.code, fault=str(fault)[:300], tenant=tenant)
            return denial(fault.code, fault.says)

    async def _load(self, tenant: str, data: TenantData) -> None:
        async with self._loading:  # first come, first served, so a newer revision is never overwritten by an older one
            if self._loaded.get(tenant) != data.digest:
                await self._engine.update(tenant, data.document)
                self._loaded[tenant] = data.digest

    async def _answer(
        self, request: DecisionRequest, caller: Caller, asked: bytes, verdict: Verdict, now: datetime
    ) -> DecisionAnswer:
        decision_id = self._new_id()
        context = AnswerContext(
            decision_id=decision_id.hex,
            reasons=verdict.reasons,
            obligations=verdict.obligations,
            bundle_digest=self.bundle_digest,
            data_revision=verdict.revision,
            input=msgspec.Raw(asked),
            evaluated_at=instant(now),
        )
        if verdict.allow is not True:
            return DecisionAnswer(False, await self._recorded(context, decision_id, caller, now))
        if permits_a_call(request):
            permit = self._signer.sign(_claims(request, caller, context, asked, now.timestamp()))
            context = msgspec.structs.replace(context, permit=permit)
        return DecisionAnswer(True, context)

    async def _recorded(
        self, context: AnswerContext, decision_id: UUID, caller: Caller, now: datetime
    ) -> AnswerContext:
        """The same, once the denial is on disk; with one reason more when it could not be written: it denies anyhow."""
        decision = Decision.deny(
            decision_id=decision_id,
            engine_input=orjson.loads(bytes(context.input)),
            reasons=recorded_reasons(context),
            bundle_digest=context.bundle_digest,
            data_revision=context.data_revision,
            at=now,
        )
        try:
            await self._record(decision, caller)
        except Exception:  # whatever keeps it from being recorded, the answer stays no
            structlog.get_logger().exception("denial.unrecorded", tenant=caller.tenant, decision_id=context.decision_id)
            return msgspec.structs.replace(context, reasons=(*context.reasons, UNRECORDED))
        return context


def _not_looked_up(fault: Refusal) -> Verdict:
    if isinstance(fault, Absent):
        return denial("policy.unknown_subject", "this user is not known")
    structlog.get_logger().warning("directory.unavailable", reason=fault.reason)
    return denial("policy.directory_unavailable", "the user's roles could not be looked up")


def _claims(
    request: DecisionRequest, caller: Caller, context: AnswerContext, asked: bytes, issued_at: float
) -> PermitClaims:
    call = request.context
    if call.ordinal is None:
        raise MalformedCommand("a permit needs the call's ordinal")
    return PermitClaims(
        jti=context.decision_id,
        tenant=caller.tenant,
        user=caller.user,
        session=call.session,
        run=call.run,
        ordinal=call.ordinal,
        tool=request.resource.id,
        args_digest=call.args_digest,
        scopes=call.scopes,
        obligations=context.obligations,
        bundle_digest=context.bundle_digest,
        data_revision=context.data_revision,
        input_digest=sha256(asked).hexdigest(),
        iat=issued_at,
        exp=issued_at + TTL_SECONDS,
    )
