"""The views that stand between a statement and its source, so that what must be withheld is never read at all.

The source is attached under a name that nobody can guess, and each table gets two temporary views:

    "t<token>_flights"  SELECT "carrier", NULL AS "tailnum" FROM s<token>."flights" WHERE "carrier" IN ('UA')
    "flights"           SELECT * FROM "t<token>_flights"

Views of the source are made again over these, so that they see no more than a statement does. Every other name in the
source gets an empty view, so that no name leads past them.

Why not SQLite's authorizer alone: it is not asked about the columns of USING and NATURAL joins, so a masked column
could be guessed by joining with it, nor at all about a table of which nothing else is read; and the view that it names
as accessor is any common table expression of that name. Here it is the second wall: only the inner views, whose names
are secret, may read the source, and only the columns that they need.

What is withheld is told all the same: a statement with such joins is taken to ask for each masked column that they may
compare.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Iterator
from typing import Final

from remit_agent_runtime.toolhost.obligations import Bounds, RowFilter
from remit_agent_runtime.toolhost.refusals import UNENFORCEABLE, ToolRefused
from remit_agent_runtime.toolhost.sql_schema import SourceSchema, Table

_FUNCTIONS: Final = (
    "-> ->> abs acos acosh asin asinh atan atan2 atanh avg ceil ceiling char coalesce concat concat_ws cos cosh count"
    " cume_dist date datetime degrees dense_rank exp first_value floor format glob group_concat hex if ifnull iif instr"
    " json json_array json_array_length json_each json_error_position json_extract json_group_array json_group_object"
    " json_object json_quote json_remove json_replace json_tree json_type json_valid julianday lag"
    " last_value lead length like likelihood likely ln log log10 log2 lower ltrim max median min mod nth_value ntile"
    " nullif octet_length percent_rank pi pow power printf quote radians random rank replace round row_number rtrim"
    " sign sin sinh soundex sqrt strftime string_agg substr substring subtype sum tan tanh time timediff total trim"
    " trunc typeof unhex unicode unixepoch unlikely upper"
)
FUNCTIONS: Final = frozenset(_FUNCTIONS.split())
"""What a statement may call; nothing here reads files, loads code, tells of the process or runs long (`sql_calls`)."""

FOLDING: Final = frozenset(
    ["group_concat", "json_group_array", "json_group_object", "jsonb_group_array", "jsonb_group_object", "string_agg"]
)
"""What makes one value of the texts of many rows: with these, a cap on rows would bound nothing."""

_PLAIN: Final = re.compile(r"\w+", re.ASCII)
_JOINS_BY_NAME: Final = re.compile(r"\b(natural|using)\b")

TABLE_FUNCTIONS: Final = frozenset({"json_each", "json_tree"})


class Shadow:
    """The views and the authorizer of one statement; its secret names die with it.

    `withheld` and `filtered` fill while the statement is prepared: masked columns that it asked for, and
    `table.column` of the row filters on tables that it reads; `folding` is what it would pass the cap on rows with.
    """

    def __init__(self, schema: SourceSchema, bounds: Bounds, reference_tables: frozenset[str]) -> None:
        self._token = secrets.token_hex(16)
        self._bounds = bounds
        self._conditions: dict[str, list[tuple[str, RowFilter]]] = {}
        self._masked: dict[str, frozenset[str]] = {}
        self._readable: dict[str, frozenset[str]] = {}
        self._tables = [table for table in schema.tables if self._cover(table, reference_tables)]
        self._views = [
            view for view in schema.views if not any(bounds.masks(view.name, column) for column in view.columns)
        ]
        self._refuse_idle_filters()
        names = {*(table.name for table in schema.tables), *(view.name for view in schema.views), *schema.others}
        self._hidden = sorted(names - {each.name for each in self._tables} - {each.name for each in self._views})
        self._offered = [*(table.name for table in self._tables), *(view.name for view in self._views)]
        self._exposed = {name.lower() for name in self._offered}
        self._inner = {self._inner_name(table.name).lower(): table.name.lower() for table in self._tables}
        self.withheld: set[str] = set()
        self.filtered: set[str] = set()
        self.folding = ""

    @property
    def source(self) -> str:
        """The name to attach the source under."""
        return f"s{self._token}"

    @property
    def offered(self) -> str:
        """The tables and views that a statement may name."""
        return ", ".join(self._offered) or "none"

    def statements(self, sql: str) -> Iterator[str]:
        """What makes the views that `sql` can name, once the source is attached: to make all costs more than most
        statements do."""
        text = sql.lower()
        views = [view for view in self._views if _may_name(text, view.name)]
        self._tell_joins(text)
        for table in self._tables:
            if not views and not _may_name(text, table.name):
                continue
            masked = self._masked[table.name.lower()]
            columns = ", ".join(
                f"NULL AS {_quoted(column)}" if column in masked else _quoted(column) for column in table.columns
            )
            conditions = [_condition(column, each) for column, each in self._conditions[table.name.lower()]]
            where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
            # SQLite moves no condition into a subquery with an OFFSET. Otherwise the statement's own could be tried on
            # rows that the filter hides, and fail on them: the error alone would tell what they hold.
            barrier = " LIMIT -1 OFFSET 0" if conditions else ""
            inner, source = _quoted(self._inner_name(table.name)), _quoted(self.source)
            # Names are quoted by doubling, values are literals made here: a view can hold no parameters.
            yield f"CREATE TEMP VIEW {inner} AS SELECT {columns} FROM {source}.{_quoted(table.name)}{where}{barrier}"  # noqa: S608
            yield f"CREATE TEMP VIEW {_quoted(table.name)} AS SELECT * FROM {inner}"  # noqa: S608
        for view in self._views if views else ():  # one may be made of others
            # SQLite stores the statement as `CREATE VIEW name ...`; unqualified names in it now mean the views above.
            yield "CREATE TEMP VIEW" + view.statement.removeprefix("CREATE VIEW")
        for name in self._hidden:
            if not views and not _may_name(text, name):
                continue
            yield f"CREATE TEMP VIEW {_quoted(name)} AS SELECT NULL AS withheld WHERE 0"

    def authorize(
        self, action: int, first: str | None, second: str | None, database: str | None, accessor: str | None
    ) -> int:
        """SQLite's authorizer callback: SELECT on the views, safe functions, nothing else."""
        if action == sqlite3.SQLITE_SELECT:
            return sqlite3.SQLITE_OK
        if self._bounds.max_rows is not None and (folding := _folding(action, second)):
            self.folding = folding
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_RECURSIVE:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_OK if (second or "").lower() in FUNCTIONS else sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_READ and self._may_read(
            (first or "").lower(), second or "", database, (accessor or "").lower()
        ):
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    def scrubbed(self, message: str) -> str:
        """An error message of SQLite's without the secret names."""
        return message.replace(f"{self.source}.", "").replace(f"t{self._token}_", "").replace(self._token, "")

    def _may_read(self, table: str, column: str, database: str | None, accessor: str) -> bool:
        if not column and (database is None or (database == self.source and not self._conditions.get(table, True))):
            # Only how many rows there are: of a common table expression (with no database), or of a table that no
            # filter narrows, whose inner view SQLite has merged into the statement.
            return True
        if database == self.source:
            if self._inner.get(accessor) != table or (column and column.lower() not in self._readable[table]):
                return False
            self.filtered |= {f"{table}.{name}" for name, _ in self._conditions[table]}
            return True
        if database == "temp":
            self.withheld |= {name for name in self._masked.get(table, ()) if name.lower() == column.lower()}
            return table in self._exposed or table in self._inner
        return database == "main" and table in TABLE_FUNCTIONS

    def _tell_joins(self, text: str) -> None:
        """Tell the masked columns that NATURAL and USING may compare: NATURAL all of a table's, USING those named."""
        left = list(self._views)
        while found := [view for view in left if _may_name(text, view.name)]:  # what a view joins, its reader joins
            text = "\n".join([text, *(view.statement.lower() for view in found)])
            left = [view for view in left if view not in found]
        joins = set(_JOINS_BY_NAME.findall(text))
        for table in self._tables if joins else ():
            if any(form in text for form in _written(table.name)):
                masked = self._masked[table.name.lower()]
                self.withheld |= {name for name in masked if "natural" in joins or _may_name(text, name)}

    def _cover(self, table: Table, reference_tables: frozenset[str]) -> bool:
        """Work out what this table's views withhold; False when a filter cannot be applied, so that it stays hidden."""
        name = table.name.lower()
        masked = {column for column in table.columns if self._bounds.masks(table.name, column)}
        if masked:  # a generated column may be made of a masked one
            masked |= table.generated
        conditions: list[tuple[str, RowFilter]] = []
        for row_filter in self._bounds.filters:
            owner, _, wanted = row_filter.column.lower().rpartition(".")
            if owner not in ("", name):
                continue
            found = next((column for column in table.columns if column.lower() == wanted), None)
            if found is not None:
                conditions.append((found, row_filter))
            elif owner or name not in reference_tables:
                return False
        self._conditions[name] = conditions
        self._masked[name] = frozenset(masked)
        readable = {
            *(column for column in table.columns if column not in masked),
            *(column for column, _ in conditions),
        }
        self._readable[name] = frozenset(column.lower() for column in readable)
        return True

    def _refuse_idle_filters(self) -> None:
        applied = {each for conditions in self._conditions.values() for _, each in conditions}
        for row_filter in self._bounds.filters:
            if row_filter not in applied:
                raise ToolRefused(f"no table has the column {row_filter.column} to filter rows by", code=UNENFORCEABLE)

    def _inner_name(self, table: str) -> str:
        return f"t{self._token}_{table}"


def _folding(action: int, function: str | None) -> str:
    """What folds many rows into one value, as a caller knows it: a function, or a recursion that can do the same."""
    if action == sqlite3.SQLITE_RECURSIVE:
        return "WITH RECURSIVE"
    name = (function or "").lower()
    return name if action == sqlite3.SQLITE_FUNCTION and name in FOLDING else ""


def _may_name(text: str, name: str) -> bool:
    """Whether a statement (in lower case) can name this table: a plain name stands in it literally, however quoted."""
    return not _PLAIN.fullmatch(name) or name.lower() in text


def _written(name: str) -> set[str]:
    """How a name can stand in a statement in lower case: each quotation mark that encloses it is doubled inside."""
    return {name.lower(), *(name.lower().replace(mark, mark * 2) for mark in "\"'`")}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _condition(column: str, row_filter: RowFilter) -> str:
    """BINARY, whatever the column's own collation: a filter on 'UA' must not let 'ua' through."""
    return f"{_quoted(column)} COLLATE BINARY IN ({', '.join(map(_literal, row_filter.values))})"


def _literal(value: str | float) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(int(value)) if isinstance(value, int) else repr(value)
