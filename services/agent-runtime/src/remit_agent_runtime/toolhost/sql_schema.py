"""What a SQLite source holds: its tables and views with their columns, read once per version of the file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from remit_agent_runtime.toolhost.definitions import ToolInvalid


class Table(NamedTuple):
    """A base table; `generated` are those of its columns that are computed from others."""

    name: str
    columns: tuple[str, ...]
    generated: frozenset[str]


class View(NamedTuple):
    """A view of the source, with the statement that made it."""

    name: str
    columns: tuple[str, ...]
    statement: str


class SourceSchema(NamedTuple):
    """All that has a name. `others` are never offered, because nothing can be withheld from what they hold: virtual
    tables and their shadow tables, and views that do not work.
    """

    tables: tuple[Table, ...]
    views: tuple[View, ...]
    others: tuple[str, ...] = ()

    def told(self) -> str:
        """For a model: `flights(year, month, ...), airlines(carrier, name)`."""
        columns = {table.name: table.columns for table in self.tables}
        columns |= {view.name: view.columns for view in self.views}
        return ", ".join(f"{name}({', '.join(of)})" for name, of in columns.items())


def uri_of(source: Path) -> str:
    """The read-only URI of a source."""
    return f"file:{quote(str(source))}?mode=ro"


def read_schema(source: Path) -> SourceSchema:
    """The schema of the file as it is now; raises ToolInvalid when it is no SQLite file."""
    if source.resolve().parent != source.parent.resolve():
        raise ToolInvalid(f"the source {source.name} leads out of its folder: put the file itself there")
    try:
        status = source.stat()
        return _read(source, status.st_mtime_ns, status.st_size)
    except (OSError, sqlite3.Error) as fault:
        raise ToolInvalid(f"the source {source.name} cannot be read ({fault}): load it, or correct `source`") from None


@lru_cache(maxsize=256)
def _read(source: Path, changed_ns: int, size_bytes: int) -> SourceSchema:
    del changed_ns, size_bytes  # they are the version in the cache's key
    with closing(sqlite3.connect("file::memory:", uri=True)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        # Attached, as for a statement: a source whose views name `main.` cannot be, and is refused here and not later.
        connection.execute("ATTACH ? AS source", (uri_of(source),))
        listed = [row for row in connection.execute("PRAGMA source.table_list") if row[0] == "source"]
        kinds = {row[1]: row[2] for row in listed if not row[1].lower().startswith("sqlite_")}
        tables = tuple(_table(connection, name) for name in sorted(kinds) if kinds[name] == "table")
        statements = connection.execute("SELECT name, sql FROM source.sqlite_master WHERE type = 'view'").fetchall()
        views = tuple(filter(None, (_view(connection, name, sql) for name, sql in sorted(statements) if sql)))
    offered = {table.name for table in tables} | {view.name for view in views}
    return SourceSchema(tables, views, tuple(sorted(set(kinds) - offered)))


def _table(connection: sqlite3.Connection, name: str) -> Table:
    rows = connection.execute("SELECT name, hidden FROM pragma_table_xinfo(?, 'source')", (name,)).fetchall()
    return Table(name, tuple(row[0] for row in rows), frozenset(row[0] for row in rows if row[1]))


def _view(connection: sqlite3.Connection, name: str, statement: str) -> View | None:
    try:
        rows = connection.execute("SELECT name FROM pragma_table_xinfo(?, 'source')", (name,)).fetchall()
    except sqlite3.Error:  # it names a table that is gone: the view answers nothing, so it is not offered
        return None
    return View(name, tuple(row[0] for row in rows), statement)
