"""Why the tool host does not carry out a call, or what went wrong with it.

All of them mean that there was no effect, but `tool.outcome_unknown` (nobody knows) and, of tools that ask a server,
what comes after its answer: `tool.http_status`, `tool.result_too_large`, `tool.malformed_result`.

    ToolRefused                        code
        tool.unknown_obligation        an obligation that nobody here knows, or of another shape
        tool.unenforceable_obligation  a known one that this tool cannot honour
        tool.lease_required            no lease, or none for exactly this call: tool.lease_invalid
        tool.bad_arguments             not what the tool's schema says
        tool.bad_statement             SQL that does not parse or fails; tool.forbidden_statement: more than a SELECT
        tool.timeout                   the deadline passed
        tool.unreachable               the tool's server did not take the request
        tool.result_too_large, tool.malformed_result
        tool.failed                    a bug of the tool: the log has its traceback
"""

from __future__ import annotations

from typing import Any, Final

from remit_contracts.errors import Refusal

UNKNOWN_OBLIGATION: Final = "tool.unknown_obligation"
UNENFORCEABLE: Final = "tool.unenforceable_obligation"
LEASE_REQUIRED: Final = "tool.lease_required"
LEASE_INVALID: Final = "tool.lease_invalid"
BAD_ARGUMENTS: Final = "tool.bad_arguments"
BAD_STATEMENT: Final = "tool.bad_statement"
FORBIDDEN_STATEMENT: Final = "tool.forbidden_statement"
TIMEOUT: Final = "tool.timeout"
UNREACHABLE: Final = "tool.unreachable"
OUTCOME_UNKNOWN: Final = "tool.outcome_unknown"
HTTP_STATUS: Final = "tool.http_status"
RESULT_TOO_LARGE: Final = "tool.result_too_large"
MALFORMED_RESULT: Final = "tool.malformed_result"
FAILED: Final = "tool.failed"


class ToolRefused(Refusal):
    """A call that gave no result; `content` is what there is to show nevertheless (an HTTP error's body)."""

    code = "tool.refused"

    def __init__(self, reason: str, *, code: str, content: Any = None) -> None:
        super().__init__(reason, code=code)
        self.content = content
