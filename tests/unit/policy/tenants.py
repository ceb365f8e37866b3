"""A tenant with the usual roles, requests about it, and an engine of one's own choosing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from remit_contracts import fast_decisions as fast
from remit_contracts.directory import Permission, RoleDefinition, TenantDescribed
from remit_contracts.permits import canonical_json
from remit_policy.decisions import engine_input, verdict_of
from remit_policy.embedded import EmbeddedEngine
from remit_policy.policies import Policies, base_policies
from remit_policy.shaping import TenantData, shape

PROTECTED = ("tailnum", "name")


def grant(action, resource_type, resource_id, **bounds):
    return Permission(action=action, type=resource_type, id=resource_id, **bounds)


ROLES = {
    "reader": RoleDefinition(
        permissions=(
            grant("agent.invoke", "agent", "*"),
            grant("tool.call", "tool", "docs"),
            grant("data.read", "data_source", "docs"),
        )
    ),
    "analyst": RoleDefinition(
        inherits=("reader",),
        permissions=(
            grant("tool.call", "tool", "sql", max_rows=100),
            grant("data.read", "data_source", "sql"),
            grant("tool.call", "tool", "convert:*"),
            grant("connection.add", "connection", "*"),
        ),
    ),
    "operator": RoleDefinition(
        inherits=("reader",), permissions=(grant("run.read", "run", "*"), grant("run.cancel", "run", "*"))
    ),
    "administrator": RoleDefinition(
        inherits=("analyst", "operator"),
        permissions=(
            grant("trail.read", "trail", "*"),
            grant("role.*", "*", "*"),
            grant("connection.share", "connection", "*"),
            grant("field.read", "data_source", "sql", fields=PROTECTED),
        ),
    ),
    "north": RoleDefinition(
        permissions=(
            grant(
                "tool.call",
                "tool",
                "sql",
                row_filter={"column": "region", "op": "in", "values": ("north", "east")},
            ),
            grant("data.read", "data_source", "sql"),
        )
    ),
}


def closure(roles: Mapping[str, RoleDefinition]) -> dict[str, tuple[str, ...]]:
    def reached(name: str) -> set[str]:
        return {name}.union(*(reached(parent) for parent in roles[name].inherits))

    return {name: tuple(sorted(reached(name))) for name in roles}


def described(*, revision=7, roles=ROLES, active=True, protected=PROTECTED) -> TenantDescribed:
    return TenantDescribed(
        revision=revision,
        active=active,
        roles=dict(roles),
        closure=closure(roles),
        protected_fields={"sql": tuple(protected)},
    )


def data(**changes) -> TenantData:
    return shape(described(**changes))


def call(tool="sql", *, user="u-1", tenant="acme", sources=("sql",), **context) -> fast.DecisionRequest:
    """A tool call that a permit can be issued for."""
    facts = {"run": "r-1", "ordinal": 3, "args_digest": "0" * 64, "session": "s-1", **context}
    return fast.ask(
        user=user,
        action="tool.call",
        resource_type="tool",
        resource_id=tool,
        tenant=tenant,
        data_sources=sources,
        context=fast.DecisionContext(**facts),
    )


def asked(request, *, at, roles=("analyst",), tenant="acme", active=True) -> bytes:
    """The engine's input for a request."""
    return canonical_json(engine_input(request, tenant=tenant, roles=tuple(roles), active=active, at=at))


@asynccontextmanager
async def embedded(policies: Policies | None = None, documents=None, **options) -> AsyncIterator[EmbeddedEngine]:
    """A loaded engine in real children, killed at the end."""
    engine = EmbeddedEngine(**options)
    await engine.load(policies or base_policies(), {"acme": data().document} if documents is None else documents)
    try:
        yield engine
    finally:
        await engine.close()


async def verdict(engine, input_json, tenant="acme"):
    return verdict_of(await engine.evaluate(tenant, input_json))


def codes(found) -> list[str]:
    """The reasons' codes of a verdict or an answer's context."""
    return [reason.code for reason in found.reasons]
