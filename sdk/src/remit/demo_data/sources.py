"""From compressed CSV to the SQLite files that the demo's SQL tools read."""

from __future__ import annotations

import csv
import gzip
import io
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

from remit.demo_data.folders import make_private

VERSION: Final = 1
"""Written as `PRAGMA user_version`: a source of another version is made anew."""

MISSING: Final = "NA"


class SourceFile(NamedTuple):
    """One SQLite file: `tables` maps a table to its column definitions, `indexes` are statements."""

    name: str
    tables: dict[str, str]
    indexes: tuple[str, ...] = ()


AIRPORTS: Final = "faa TEXT PRIMARY KEY, name TEXT, lat REAL, lon REAL, alt INTEGER, tz INTEGER, dst TEXT, tzone TEXT"

SOURCES: Final[dict[str, tuple[SourceFile, ...]]] = {
    "acme": (
        SourceFile(
            "flights",
            {
                "flights": "year INTEGER, month INTEGER, day INTEGER, dep_time INTEGER, sched_dep_time INTEGER,"
                " dep_delay INTEGER, arr_time INTEGER, sched_arr_time INTEGER, arr_delay INTEGER, carrier TEXT,"
                " flight INTEGER, tailnum TEXT, origin TEXT, dest TEXT, air_time INTEGER, distance INTEGER,"
                " hour INTEGER, minute INTEGER",
                "airlines": "carrier TEXT PRIMARY KEY, name TEXT",
                "planes": "tailnum TEXT PRIMARY KEY, year INTEGER, type TEXT, manufacturer TEXT, model TEXT,"
                " engines INTEGER, seats INTEGER, speed INTEGER, engine TEXT",
                "airports": AIRPORTS,
            },
            ("CREATE INDEX flights_by_carrier ON flights (carrier)", "CREATE INDEX flights_by_dest ON flights (dest)"),
        ),
    ),
    "globex": (
        SourceFile(
            "weather",
            {
                "weather": "origin TEXT, year INTEGER, month INTEGER, day INTEGER, hour INTEGER, temp REAL, dewp REAL,"
                " humid REAL, wind_dir INTEGER, wind_speed REAL, wind_gust REAL, precip REAL, pressure REAL,"
                " visib REAL",
                "airports": AIRPORTS,
            },
            ("CREATE INDEX weather_by_day ON weather (origin, year, month, day)",),
        ),
    ),
}
"""tenant -> its sources. The columns' order is the CSV files'."""


def load_source(path: Path, tenant: str, source: SourceFile) -> bool:
    """Make the SQLite file, unless one of this version is there; returns whether it was made."""
    if _version_of(path) == VERSION:
        return False
    make_private(path.parent)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")  # it becomes the source only by the rename below
        connection.execute("BEGIN")
        for table, columns in source.tables.items():
            connection.execute(f"CREATE TABLE {table} ({columns})")
            marks = ", ".join("?" * (columns.count(",") + 1))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", _rows(tenant, table))  # noqa: S608  # our own
        for statement in source.indexes:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    unfinished.chmod(0o600)
    unfinished.replace(path)
    return True


def _rows(tenant: str, table: str) -> Iterator[list[str | None]]:
    """Rows of the packaged CSV; SQLite turns the texts into numbers by each column's affinity."""
    packed = files(__package__).joinpath(tenant, f"{table}.csv.gz").read_bytes()
    with io.TextIOWrapper(gzip.GzipFile(fileobj=io.BytesIO(packed)), encoding="utf-8", newline="") as text:
        reader = csv.reader(text)
        next(reader)
        for row in reader:
            yield [None if value == MISSING else value for value in row]


def _version_of(path: Path) -> int | None:
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error:
        return None
