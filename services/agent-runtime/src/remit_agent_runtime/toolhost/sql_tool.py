"""SELECT on a SQLite file: read-only, behind the views of `sql_shadow`, bounded in time, rows, bytes and memory."""

from __future__ import annotations

import math
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from remit_agent_runtime.toolhost.definitions import SqlTool
from remit_agent_runtime.toolhost.obligations import Bounds
from remit_agent_runtime.toolhost.refusals import (
    BAD_ARGUMENTS,
    BAD_STATEMENT,
    FORBIDDEN_STATEMENT,
    RESULT_TOO_LARGE,
    TIMEOUT,
    ToolRefused,
)
from remit_agent_runtime.toolhost.sql_calls import (
    LONGEST_VALUE_BYTES,
    OPERATIONS_BETWEEN_CHECKS,
    CallGuards,
    operations_between_checks,
)
from remit_agent_runtime.toolhost.sql_provenance import Uncountable, weigh
from remit_agent_runtime.toolhost.sql_schema import SourceSchema, read_schema, uri_of
from remit_agent_runtime.toolhost.sql_shadow import TABLE_FUNCTIONS, Shadow

MAX_STATEMENT_CHARACTERS: Final = 20_000
COUNTED_ROWS: Final = 10_000
"""How many rows beyond the cap are counted, to tell how many were cut; with more, this is told."""
HEAP_LIMIT_BYTES: Final = 256 * 1024**2
"""Of all statements of the process together: a sort that would need more fails, and nothing is spilled to disk."""

_LEADING = re.compile(r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*", re.DOTALL)
_FIRST_WORD = re.compile(r"[A-Za-z]+")
_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: LONGEST_VALUE_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 500,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 50_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 1,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


class SqlResult(NamedTuple):
    """`content` is `{"columns", "rows", "truncated"}`; `withheld` as in ToolOutcome."""

    content: dict[str, Any]
    withheld: dict[str, Any]


def statement_of(arguments: dict[str, Any]) -> str:
    """The statement in a call's arguments `{"sql": ...}`; raises ToolRefused."""
    sql = arguments.get("sql")
    if set(arguments) != {"sql"} or not isinstance(sql, str) or not sql.strip():
        raise ToolRefused("the arguments are {'sql': 'SELECT ...'} and nothing else", code=BAD_ARGUMENTS)
    if len(sql) > MAX_STATEMENT_CHARACTERS:
        raise ToolRefused(f"a statement may have {MAX_STATEMENT_CHARACTERS} characters", code=BAD_ARGUMENTS)
    word = _FIRST_WORD.match(sql, _LEADING.match(sql).end())  # type: ignore[union-attr]  # it matches the empty text too
    if word is None or word.group().upper() not in {"SELECT", "WITH", "VALUES"}:
        # EXPLAIN passes every authorizer, and its listing names what the views hide.
        raise ToolRefused("only one SELECT statement (or WITH, or VALUES) is run", code=FORBIDDEN_STATEMENT)
    if "sqlite_" in sql.lower():  # these names cannot be hidden behind views, and sqlite_stat4 holds samples of rows
        raise ToolRefused("SQLite's own tables and functions are not for statements", code=FORBIDDEN_STATEMENT)
    return sql


def run_statement(
    definition: SqlTool, home: Path, sql: str, bounds: Bounds, *, deadline: float, stopped: threading.Event
) -> SqlResult:
    """Run one statement, in the thread that calls; `deadline` is on the monotonic clock. Raises ToolRefused."""
    source = home / definition.source
    schema = read_schema(source)
    shadow = Shadow(schema, bounds, frozenset(name.lower() for name in definition.reference_tables))
    deadline = min(deadline, time.monotonic() + definition.statement_seconds)
    with closing(_open(source, shadow, sql)) as connection, closing(CallGuards(connection, sql)) as guards:
        past_deadline = partial(_is_over, deadline, stopped)
        connection.set_progress_handler(past_deadline, OPERATIONS_BETWEEN_CHECKS)
        connection.set_authorizer(shadow.authorize)
        try:
            # Compiled and not run: what is wrong with the statement itself comes first.
            connection.set_progress_handler(past_deadline, operations_between_checks(connection, sql))
            limit = min(definition.max_rows, _rows_allowed(sql, schema, bounds))
            return _collect(connection.execute(sql), definition, limit, shadow)
        except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError) as fault:
            raise _explained(fault, shadow, guards, quoting=bounds.max_rows != 0) from None


def _open(source: Path, shadow: Shadow, sql: str) -> sqlite3.Connection:
    """An empty database in memory with the source attached to it, read-only, and the views made."""
    connection = sqlite3.connect("file::memory:", uri=True, isolation_level=None, cached_statements=0)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"ATTACH ? AS {shadow.source}", (uri_of(source),))
        for statement in shadow.statements(sql):
            connection.execute(statement)
        for function in TABLE_FUNCTIONS:
            if function in sql.lower():  # its first use declares a table, which the authorizer would refuse
                connection.execute(f"SELECT 1 FROM {function}('[]')")  # noqa: S608  # a constant of ours
        connection.execute("PRAGMA query_only = ON")
        for limit, value in _LIMITS.items():
            connection.setlimit(limit, value)
        connection.text_factory = lambda raw: raw.decode(errors="replace")
    except BaseException:
        connection.close()
        raise
    return connection


def _rows_allowed(sql: str, schema: SourceSchema, bounds: Bounds) -> float:
    """How many rows the answer may have, so that together they tell of no more rows of a table than `max_rows`.

    Nothing has run before this is known: an error tells a value too.
    """
    if bounds.max_rows is None:
        return math.inf
    try:
        weight = weigh(sql, schema)
        if not bounds.max_rows or weight.rows <= bounds.max_rows:
            return bounds.max_rows // weight.rows
        reason = (
            f"one row of this answer can tell of {weight.rows} rows of a table (by {weight.column}), and this call may"
            f" tell of {bounds.max_rows} (max_rows): take that column fewer times (in aggregates, subqueries, joins of"
            " a table with itself), or select the rows themselves"
        )
    except Uncountable as fault:
        reason = f"under max_rows it must be plain what a row of the answer tells: {fault}, so write it more simply"
    raise ToolRefused(reason, code=FORBIDDEN_STATEMENT)


def _collect(cursor: sqlite3.Cursor, definition: SqlTool, limit: float, shadow: Shadow) -> SqlResult:
    columns = [column[0] for column in cursor.description or ()]
    if not columns:
        raise ToolRefused("the statement gives no rows: it must be a SELECT", code=BAD_STATEMENT)
    rows: list[list[Any]] = []
    left = definition.max_bytes - len(orjson.dumps(columns))
    if left < 0:
        raise ToolRefused(f"the columns alone are over {definition.max_bytes} bytes", code=RESULT_TOO_LARGE)
    cut = 0
    for raw in _rows(cursor):
        if cut or len(rows) >= limit:
            cut += 1
        else:
            row = [_cell(value) for value in raw]
            left -= len(orjson.dumps(row)) + 1
            if left < 0:
                cut = 1
            else:
                rows.append(row)
        if cut >= COUNTED_ROWS:
            break
    withheld = {"fields": sorted(shadow.withheld), "rows_cut": cut, "row_filters": sorted(shadow.filtered)}
    content = {"columns": columns, "rows": rows, "truncated": cut > 0}
    return SqlResult(content, withheld if any(withheld.values()) else {})


def _is_over(deadline: float, stopped: threading.Event) -> bool:
    return stopped.is_set() or time.monotonic() > deadline


def _rows(cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
    while batch := cursor.fetchmany(100):
        yield from batch


def _cell(value: Any) -> Any:
    """JSON for a cell; bytes only say how many they are."""
    return {"bytes": len(value)} if isinstance(value, bytes) else value


def _explained(fault: Exception, shadow: Shadow, guards: CallGuards, *, quoting: bool) -> ToolRefused:
    """The refusal; SQLite's own words, which may quote a value, only when `quoting`."""
    message = shadow.scrubbed(str(fault))
    if message == "interrupted":
        return ToolRefused("the statement took too long and was stopped: ask for less", code=TIMEOUT)
    if guards.refused:
        return ToolRefused(guards.refused, code=FORBIDDEN_STATEMENT)
    if "too big" in message:
        reason = (
            f"a value, or a row to sort or keep, is over the {LONGEST_VALUE_BYTES} bytes that it may have: leave that"
            " column out, or put less into one value"
        )
        return ToolRefused(reason, code=RESULT_TOO_LARGE)
    if isinstance(fault, MemoryError) or "out of memory" in message:
        return ToolRefused("the statement needs more memory than it may have: ask for less", code=RESULT_TOO_LARGE)
    if shadow.folding:
        reason = (
            f"{shadow.folding} can fold many rows into one value, and this call may give so many rows only (max_rows):"
            " select the rows themselves, or count, sum, min, max or average them"
        )
        return ToolRefused(reason, code=FORBIDDEN_STATEMENT)
    if "not authorized" in message or "prohibited" in message:
        reason = (
            f"the statement asks for more than a SELECT on the tables offered ({shadow.offered}) with plain functions"
        )
        return ToolRefused(reason, code=FORBIDDEN_STATEMENT)
    told = message if quoting else "the statement cannot be run"
    return ToolRefused(f"{told} (tables: {shadow.offered})", code=BAD_STATEMENT)
