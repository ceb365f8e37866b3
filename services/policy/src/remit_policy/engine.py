"""What decides: the port that every policy engine fits, and how it may fail.

    EngineError
    +-- EngineTimeout      policy.deadline            not decided in time; the evaluation was stopped
    +-- EngineFailed       policy.engine_failed       the engine died, or reported an error
    +-- EngineUnreachable  policy.engine_unreachable  no engine is up
    +-- EngineOverloaded   policy.overloaded          too many decisions wait already

Whoever asks turns each of them into a denial with that code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Protocol

from remit_policy.policies import Policies

DECISION_RULE: Final = "remit.decision.result"
MAX_INPUT_BYTES: Final = 64 * 1024
DEADLINE_SECONDS: Final = 0.25

PROBE_TENANT: Final = "platform"
"""A reserved id, so no tenant's data answers the probe: a working engine denies it."""
PROBE_INPUT: Final = b'{"subject":{"type":"user","id":"probe","properties":{"tenant":"platform"}}}'


class EngineError(Exception):
    """No decision. The message is for the log: it may quote the input."""

    code: ClassVar[str] = "policy.engine_failed"
    says: ClassVar[str] = "the policy engine failed"


class EngineTimeout(EngineError):
    """The evaluation took too long and was stopped."""

    code = "policy.deadline"
    says = "the policy was not decided in time"


class EngineFailed(EngineError):
    """The engine died under this evaluation, or reported an error."""


class EngineUnreachable(EngineError):
    """There is no engine to ask."""

    code = "policy.engine_unreachable"
    says = "no policy engine answers"


class EngineOverloaded(EngineError):
    """More decisions wait than there is room for."""

    code = "policy.overloaded"
    says = "too many decisions are waiting"


class PolicyEngine(Protocol):
    """Evaluates DECISION_RULE. Data is kept by tenant at `data.directory[tenant]`; a decision sees one revision."""

    @property
    def name(self) -> str:
        """`opa` or `embedded`."""
        ...

    async def load(self, policies: Policies, data: Mapping[str, bytes]) -> None:
        """Start, with these policies and each tenant's JSON document; raises EngineError when they do not load."""
        ...

    async def update(self, tenant: str, document: bytes) -> None:
        """Replace one tenant's document: every evaluation that is asked for after the return sees it, whole."""
        ...

    async def evaluate(self, tenant: str, input_json: bytes) -> bytes:
        """The rule's value as JSON (not an object when it is undefined); raises EngineError."""
        ...

    async def probe(self) -> str:
        """What answers, after an evaluation that succeeded; raises EngineError."""
        ...

    async def close(self) -> None:
        """Stop what was started."""
        ...
