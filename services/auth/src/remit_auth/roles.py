"""A tenant's roles: definitions that inherit without cycles, their closure, and the fields that data sources protect.

    Refusal
    +-- Conflict
    |   +-- RoleCycle         conflict.role_cycle        inheritance that leads back to the role
    |   +-- TooManyRoles      conflict.too_many_roles
    +-- Absent
    |   +-- UnknownRole       absent.role

The graph is walked iteratively, because a chain of a thousand roles must not meet the interpreter's recursion limit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from eventsourcing.domain import Aggregate

from remit_auth.ids import aggregate_id
from remit_contracts.errors import Absent, Conflict
from remit_contracts.identity import label

MAX_ROLES = 1000


class RoleCycle(Conflict):
    """A role that would inherit from itself."""

    code = "conflict.role_cycle"

    def __init__(self, *, path: Sequence[str]) -> None:
        super().__init__(f"role {path[0]} would inherit from itself: {' -> '.join(path)}", code=self.code)


class TooManyRoles(Conflict):
    """A tenant's roles are bounded, because every decision carries their closure."""

    code = "conflict.too_many_roles"

    def __init__(self) -> None:
        super().__init__(f"a tenant has at most {MAX_ROLES} roles", code=self.code)


class UnknownRole(Absent):
    """A role that nobody defined."""

    code = "absent.role"

    def __init__(self, *, role: str) -> None:
        super().__init__(f"no role {role} is defined: define it first", code=self.code)


class Roles(Aggregate):
    """A tenant's role definitions, a graph without cycles, and the fields that its data sources protect.

    `definitions` is name -> {"inherits": [name], "permissions": [permission]}; `closure` is recomputed at every change.
    """

    TOPIC = "auth.Roles"

    def __init__(self) -> None:
        self.definitions: dict[str, dict[str, Any]] = {}
        self.closure: dict[str, tuple[str, ...]] = {}
        self.protected_fields: dict[str, tuple[str, ...]] = {}

    @staticmethod
    def id_of(tenant_id: str) -> UUID:
        """The aggregate's id: one per tenant."""
        return aggregate_id("roles", tenant_id)

    @classmethod
    def establish(cls, *, tenant_id: str, at: datetime) -> Roles:
        """A tenant begins without roles: nobody may do anything."""
        return cls._create(cls.Established, id=cls.id_of(tenant_id), timestamp=at)

    def define(
        self, *, name: str, inherits: Sequence[str], permissions: Sequence[Mapping[str, Any]], at: datetime
    ) -> None:
        """Define a role, or define it anew; raises UnknownRole, RoleCycle or TooManyRoles."""
        parents = sorted(set(inherits))
        definition: dict[str, Any] = {"inherits": parents, "permissions": [dict(item) for item in permissions]}
        if self.definitions.get(label(name, kind="role")) == definition:
            return
        if name not in self.definitions and len(self.definitions) >= MAX_ROLES:
            raise TooManyRoles
        for parent in parents:
            if parent != name and parent not in self.definitions:
                raise UnknownRole(role=parent)
        edges = {role: known["inherits"] for role, known in self.definitions.items()} | {name: parents}
        if path := way_back(edges, name):
            raise RoleCycle(path=path)
        self.trigger_event(self.RoleDefined, timestamp=at, name=name, **definition)

    def protect_fields(self, *, source: str, fields: Collection[str], at: datetime) -> None:
        """Replace the list of a source's protected fields; an empty one protects none."""
        wanted = sorted(set(fields))
        if wanted != list(self.protected_fields.get(label(source, kind="data source"), ())):
            self.trigger_event(self.FieldsProtected, timestamp=at, source=source, fields=wanted)

    class Event(Aggregate.Event):
        """Something that happened to it."""

    class Established(Event, Aggregate.Created):
        TOPIC = "auth.Roles.Established"

    Created = Established  # the library would make one more event of this name

    class RoleDefined(Event):
        TOPIC = "auth.Roles.RoleDefined"
        name: str
        inherits: list[str]
        permissions: list[dict[str, Any]]

        def apply(self, aggregate: Roles) -> None:
            aggregate.definitions[self.name] = {"inherits": self.inherits, "permissions": self.permissions}
            aggregate.closure = closure({role: known["inherits"] for role, known in aggregate.definitions.items()})

    class FieldsProtected(Event):
        TOPIC = "auth.Roles.FieldsProtected"
        source: str
        fields: list[str]

        def apply(self, aggregate: Roles) -> None:
            aggregate.protected_fields[self.source] = tuple(self.fields)
            if not self.fields:
                del aggregate.protected_fields[self.source]


def closure(inherits: Mapping[str, Collection[str]]) -> dict[str, tuple[str, ...]]:
    """Per role, itself and all that it inherits, sorted.

    Example: {"reader": [], "analyst": ["reader"]} gives {"reader": ("reader",), "analyst": ("analyst", "reader")}.
    """
    return {role: tuple(sorted(_reachable(inherits, role))) for role in inherits}


def way_back(inherits: Mapping[str, Collection[str]], role: str) -> tuple[str, ...]:
    """The shortest path from `role` to itself, both ends included; empty when there is none."""
    came_from: dict[str, str] = {}
    frontier = [role]
    while frontier:
        reached: list[str] = []
        for current in frontier:
            for parent in inherits.get(current, ()):
                if parent == role:
                    return _path(came_from, role, current)
                if parent not in came_from:
                    came_from[parent] = current
                    reached.append(parent)
        frontier = reached
    return ()


def _reachable(inherits: Mapping[str, Collection[str]], role: str) -> set[str]:
    seen = {role}
    waiting = [role]
    while waiting:
        for parent in inherits.get(waiting.pop(), ()):
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return seen


def _path(came_from: Mapping[str, str], role: str, last: str) -> tuple[str, ...]:
    path = [role, last]
    while path[-1] != role:
        path.append(came_from[path[-1]])
    return tuple(reversed(path))
