"""What one function call of a statement may cost, and all calls between two looks at the deadline.

SQLite looks at the deadline between operations and never inside a function, so no single call may last. Four bounds
see to that, and the service's README names the worst case that was measured:

- no value is over LONGEST_VALUE_BYTES, which keeps even `instr` and `replace`, whose cost is a product, below 50 ms;
- `trim` with a set of characters, and `printf`, pass a guard first, because no length of a value bounds them;
- functions that no such bound helps are not offered: `json_patch`, and `json_set`, which recurses along its path until
  the process ends;
- between two looks there are at most MAX_SLOW_CALLS of SLOW functions and MAX_CALLS of any, since one row is computed
  without a look.
"""

from __future__ import annotations

import re
import sqlite3
from functools import cache, partial
from typing import Any, Final

from remit_agent_runtime.toolhost.refusals import FORBIDDEN_STATEMENT, ToolRefused

LONGEST_VALUE_BYTES: Final = 65_536
"""Of one text or blob, and of one row that SQLite sorts or keeps: SQLITE_LIMIT_LENGTH."""
MAX_TRIMMED_CHARACTERS: Final = 100
MAX_SLOW_CALLS: Final = 50
MAX_CALLS: Final = 1_000
OPERATIONS_BETWEEN_CHECKS: Final = 2_000
OPERATIONS_BETWEEN_CHECKS_WHEN_SLOW: Final = 50

SLOW: Final = frozenset(
    [
        *("concat", "concat_ws", "format", "glob", "instr", "like", "ltrim", "printf", "replace", "rtrim", "strftime"),
        *("json_array", "json_extract", "json_object", "json_remove", "json_replace", "trim"),
    ]
)
"""Those of which one call was measured above 0.3 ms at the bounds above, and those alike of newer versions."""

_CALLING: Final = frozenset({"Function", "PureFunc", "AggStep", "AggStep1", "AggInverse"})
_PLACEHOLDER: Final = re.compile(r"%%|%[-+ #!,.l0-9*]*")
_NUMBER: Final = re.compile(r"[0-9]+")


class CallGuards:
    """The guarded functions of one connection, which stands in their statement; `refused` is why one of them did not
    run, or ""."""

    def __init__(self, connection: sqlite3.Connection, sql: str) -> None:
        self.refused = ""
        self._checked = ""
        # A connection without guards: what passes them is computed by SQLite itself, to the letter.
        self._plain = sqlite3.connect(":memory:", isolation_level=None)
        self._plain.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE_BYTES)
        text = sql.lower()
        for name in ("trim", "ltrim", "rtrim"):
            if name in text:
                connection.create_function(name, 2, partial(self._trim, name), deterministic=True)
        # Only where the statement names them: SQLite lets no generated column of a source call a function of ours.
        for name in ("printf", "format"):
            if name in text:
                connection.create_function(name, -1, partial(self._format, name), deterministic=True)

    def close(self) -> None:
        """Once the statement has ended."""
        self._plain.close()

    def _trim(self, name: str, value: Any, characters: Any) -> Any:
        if isinstance(characters, (str, bytes)) and len(characters) > MAX_TRIMMED_CHARACTERS:
            self._refuse(f"{name} takes at most {MAX_TRIMMED_CHARACTERS} characters to take off: give fewer")
        return self._compute(name, (value, characters))

    def _format(self, name: str, *arguments: Any) -> Any:
        template = arguments[0] if arguments else None
        text = template.decode("latin-1") if isinstance(template, bytes) else template
        if isinstance(text, str) and text != self._checked:  # mostly the same for every row
            self._check_template(name, text)
            self._checked = text
        return self._compute(name, arguments)

    def _check_template(self, name: str, template: str) -> None:
        total = 0
        for placeholder in _PLACEHOLDER.findall(template):
            if "*" in placeholder:
                self._refuse(f"{name} takes no width from an argument (*): write it into the format")
            # Longer numbers are not read: to do so costs more than it tells.
            total += sum(
                int(digits) if len(digits) <= len(str(LONGEST_VALUE_BYTES)) else LONGEST_VALUE_BYTES
                for digits in _NUMBER.findall(placeholder)
            )
            if total >= LONGEST_VALUE_BYTES:
                self._refuse(f"the widths in the format of {name} may be {LONGEST_VALUE_BYTES} together: ask for less")

    def _compute(self, name: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return self._plain.execute(_call_of(name, len(arguments)), arguments).fetchone()[0]
        except sqlite3.Error as fault:
            self._refuse(f"{name} cannot be computed ({fault}): ask for less")

    def _refuse(self, reason: str) -> Any:
        self.refused = reason
        raise ValueError(reason)  # SQLite ends the statement; what it says of it is not this reason


@cache
def _call_of(name: str, arguments: int) -> str:
    return f"SELECT {name}({', '.join('?' * arguments)})"


def operations_between_checks(connection: sqlite3.Connection, sql: str) -> int:
    """How many operations the statement may do between two looks at its deadline, by what it calls in them.

    Raises ToolRefused for one that calls more than may be called for one row, and sqlite3.Error for one that SQLite
    does not compile: nothing of it has run.
    """
    calls = slow = 0
    for row in connection.execute(f"EXPLAIN {sql}"):
        if row[1] not in _CALLING:
            continue
        calls += 1
        slow += str(row[5]).partition("(")[0] in SLOW  # "instr(2)": the name, and how many arguments
    if calls > MAX_CALLS or slow > MAX_SLOW_CALLS:
        raise ToolRefused(
            f"the statement calls {calls} functions for one row, {slow} of them slow ones ({', '.join(sorted(SLOW))}),"
            f" and may call {MAX_CALLS} and {MAX_SLOW_CALLS}: ask in several statements",
            code=FORBIDDEN_STATEMENT,
        )
    return OPERATIONS_BETWEEN_CHECKS_WHEN_SLOW if slow else OPERATIONS_BETWEEN_CHECKS
