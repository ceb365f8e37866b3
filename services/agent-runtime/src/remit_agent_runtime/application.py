"""What users ask of runs: start, cancel, show, list; and which agents they may use.

Absent and forbidden answer alike: what a user may not see is not there. An agent is decided on before it is looked
up, so a refusal tells nobody whether it exists.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import Protocol
from uuid import UUID

import structlog

from remit_agent_runtime.agents import AgentFolder
from remit_agent_runtime.domain import Run, RunHasEnded
from remit_agent_runtime.inhand import Announce, RunInHand
from remit_agent_runtime.jobs import Jobs
from remit_agent_runtime.models import Models
from remit_agent_runtime.patience import nobody_decided, patiently
from remit_agent_runtime.projections import RunLists
from remit_agent_runtime.queue import RunQueue
from remit_agent_runtime.toolhost.catalog import ToolDescriptor
from remit_agent_runtime.views import view_of
from remit_agent_runtime.worker import Stores
from remit_chassis.sessions import Ask, require_session
from remit_contracts.decisions import UNDECIDED
from remit_contracts.errors import Absent, Conflict, Denied, Refusal, Unavailable
from remit_contracts.fast_decisions import DecisionAnswer, DecisionContext, ask
from remit_contracts.identity import Caller, data_key_scope
from remit_contracts.runs import AgentRow, AgentsListed, RunsListed, RunStarted, RunView, StartRun

CANCEL_ATTEMPTS = 5
PATIENCE_SECONDS = 3.0
"""How long a new run waits for auth, then for policy and what that needs, to be back: less than its client waits."""
DECIDE_SECONDS = 5.0
DECIDE_NEW_RUN_SECONDS = 1.0
"""How long one question of those may take, so that a policy which does not answer the first is asked twice more."""


class Catalog(Protocol):
    """The tenants' tools."""

    def descriptors(self, tenant: str) -> list[ToolDescriptor]:
        """In the file's order."""


class Runs:
    """The use cases. Each raises Refusals only, apart from bugs."""

    def __init__(
        self,
        *,
        stores: Stores,
        queue: RunQueue,
        jobs: Jobs,
        agents: AgentFolder,
        catalog: Catalog,
        models: Models,
        ask: Ask,
        clock: Callable[[], datetime],
        announce: Announce | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._stores = stores
        self._queue = queue
        self._jobs = jobs
        self._agents = agents
        self._catalog = catalog
        self._models = models
        self._ask = ask
        self._clock = clock
        self._announce = announce
        self._patience_seconds = patience_seconds
        self._lists = RunLists()

    async def start(self, command: StartRun, caller: Caller) -> RunStarted:
        """Accept a run. When this returns, the acceptance is on disk.

        Raises NotSignedIn (the session is none of the caller's), Denied, Absent, AgentInvalid, ModelUnavailable,
        Overloaded, Conflict (the key was used for something else), Unavailable.
        """
        run_id = run_id_for(caller, command.idempotency_key)
        if command.idempotency_key and (earlier := await self._earlier(command, caller, run_id)):
            return earlier
        self._queue.admit(caller.tenant, caller.user, run_id)
        try:
            run = await self._new_run(command, caller, run_id)
            hand = self._in_hand(caller.tenant, run)
            await hand.save()
        except Conflict:
            self._queue.withdraw(run_id)
            if earlier := await self._earlier(command, caller, run_id):  # the same request, at the same time
                return earlier
            raise
        except BaseException:
            self._queue.withdraw(run_id)
            raise
        try:
            await self._jobs.publish(caller.tenant, caller.user, command.agent, run_id)
        except Unavailable as fault:
            # It is accepted, so it is owed: without the work queue it goes to the workers directly.
            structlog.get_logger().warning("job.not_queued", run=run.run_id, reason=fault.reason)
            self._queue.put(caller.tenant, caller.user, run_id)
        return RunStarted(run_id=run.run_id, status="accepted")

    async def _earlier(self, command: StartRun, caller: Caller, run_id: UUID) -> RunStarted | None:
        """The run that this idempotency key began, if it did."""
        try:
            run = await self._stores.of(caller.tenant).load(Run, run_id)
        except Absent:
            return None
        if not run.asked_the_same(agent=command.agent, prompt=command.prompt, conversation=command.session or ""):
            raise Conflict(
                "this idempotency_key began another run: use a new key for a new request",
                code="conflict.idempotency_key",
            )
        return RunStarted(run_id=run.run_id, status=run.status)

    async def _new_run(self, command: StartRun, caller: Caller, run_id: UUID) -> Run:
        """Decided and bound; not stored yet."""
        # It is recorded, in the run and at policy, so it must be one of the user's: the bus proves the user alone.
        await patiently(
            lambda: require_session(self._ask, caller, within_seconds=DECIDE_NEW_RUN_SECONDS),
            seconds=self._patience_seconds,
        )
        decision = await patiently(
            lambda: self._decide(
                caller, "agent.invoke", "agent", command.agent, run_id.hex, within_seconds=DECIDE_NEW_RUN_SECONDS
            ),
            seconds=self._patience_seconds,
            away=nobody_decided,
        )
        decision.required()
        tools = {tool.id: tool for tool in self._catalog.descriptors(caller.tenant)}
        definition = self._agents.get(caller.tenant, command.agent, tools=tools)
        return Run.accept(
            run_id=run_id,
            user=caller.user,
            session=caller.session,
            conversation=command.session or "",
            prompt=command.prompt,
            idempotency_key=command.idempotency_key or "",
            agent=definition.frozen(),
            bindings={
                "agent_digest": definition.digest,
                "model": self._models.settle(definition.model),
                "tools": {name: tools[name].digest for name in definition.tools},
            },
            decision=decision.recorded(),
            at=self._clock(),
        )

    def _in_hand(self, tenant: str, run: Run) -> RunInHand:
        return RunInHand(
            tenant=tenant, run=run, store=self._stores.of(tenant), clock=self._clock, announce=self._announce
        )

    async def show(self, run_id: str, caller: Caller) -> RunView:
        """One's own run, or another's with the permission `run.read`; else Absent."""
        return view_of(await self._visible(run_id, caller, "run.read"))

    async def cancel(self, run_id: str, caller: Caller) -> RunStarted:
        """End a run. A run that has ended stays as it is, and its status says how."""
        run = await self._visible(run_id, caller, "run.cancel")
        for _ in range(CANCEL_ATTEMPTS):
            if run.has_ended:
                break
            await self._queue.cancel(run.id, by=caller.user)
            run = await self._stores.of(caller.tenant).load(Run, run.id)
            if run.has_ended:
                break
            run = await self._record_cancellation(run, caller)
        else:
            raise Unavailable("the run could not be cancelled just now: try again", retry_after_seconds=1.0)
        return RunStarted(run_id=run.run_id, status=run.status)

    async def _record_cancellation(self, run: Run, caller: Caller) -> Run:
        """End a run that no worker has; what another process stored meanwhile is loaded and looked at again."""
        hand = self._in_hand(caller.tenant, run)
        try:
            run.cancel(by=caller.user, cpu_seconds=0.0, at=self._clock())
            await hand.save()
        except (Conflict, RunHasEnded):
            return await self._stores.of(caller.tenant).load(Run, run.id)
        self._queue.withdraw(run.id)
        return run

    async def list_own(self, caller: Caller, limit: int) -> RunsListed:
        """One's own runs, newest first."""
        rows = await self._lists.newest(self._stores.of(caller.tenant), caller.tenant, caller.user, limit + 1)
        return RunsListed(runs=tuple(rows[:limit]), more=len(rows) > limit)

    async def list_agents(self, caller: Caller) -> AgentsListed:
        """The agents that the caller may invoke and whose definitions hold, by name.

        Raises Unavailable when policy could not decide about one of them: a list without it would be a wrong answer.
        """
        await require_session(self._ask, caller)
        rows = [await self._row(name, caller) for name in self._agents.names(caller.tenant)]
        return AgentsListed(agents=tuple(row for row in rows if row))

    async def _row(self, name: str, caller: Caller) -> AgentRow | None:
        try:
            (await self._decide(caller, "agent.invoke", "agent", name)).required()
            tools = [tool.id for tool in self._catalog.descriptors(caller.tenant)]
            definition = self._agents.get(caller.tenant, name, tools=tools)
            model = self._models.settle(definition.model)
        except Unavailable:
            raise
        except Refusal as refused:
            if refused.refusal_code in UNDECIDED:
                raise Unavailable(
                    f"which agents you may use cannot be decided just now: {refused.reason}",
                    decision_id=refused.decision_id,
                    retry_after_seconds=1.0,
                ) from None
            if not isinstance(refused, Denied):
                structlog.get_logger().warning(
                    "agent.unusable", agent=name, tenant=caller.tenant, reason=refused.reason
                )
            return None
        return AgentRow(
            name=name,
            description=definition.description,
            model=model,
            tools=tuple(definition.tools),
            digest=definition.digest,
        )

    async def _visible(self, run_id: str, caller: Caller, action: str) -> Run:
        absent = Absent(f"there is no run {run_id} for you: `remit runs list` shows yours")
        try:
            run = await self._stores.of(caller.tenant).load(Run, UUID(hex=run_id))
        except Absent:
            run = None
        if run and run.user == caller.user:
            return run
        await require_session(self._ask, caller)  # first, so that a run which is there is refused like one which is not
        if run is None or not (await self._decide(caller, action, "run", run_id)).decision:
            raise absent
        return run

    async def _decide(
        self,
        caller: Caller,
        action: str,
        kind: str,
        name: str,
        run_id: str = "",
        *,
        within_seconds: float = DECIDE_SECONDS,
    ) -> DecisionAnswer:
        request = ask(
            user=caller.user,
            action=action,
            resource_type=kind,
            resource_id=name,
            tenant=caller.tenant,
            context=DecisionContext(run=run_id, session=caller.session),
        )
        payload = await self._ask(
            caller.tenant, caller.user, "policy", "decide", request.to_bytes(), timeout_seconds=within_seconds
        )
        return DecisionAnswer.from_bytes(payload)


def run_id_for(caller: Caller, idempotency_key: str | None) -> UUID:
    """Random, or the one id that this user's key stands for: the store then refuses a second acceptance."""
    if not idempotency_key:
        return UUID(bytes=secrets.token_bytes(16))
    scope = data_key_scope(caller.tenant, caller.user)
    return UUID(bytes=sha256(b"remit-run-v1\n%s\n%s" % (scope, idempotency_key.encode())).digest()[:16])
