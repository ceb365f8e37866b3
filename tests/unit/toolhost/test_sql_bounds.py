"""One SELECT, and only so much of time, rows, bytes and memory."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from unit.toolhost.rig import Rig
from unit.toolhost.test_sql_withholding import run

from remit_agent_runtime.toolhost.definitions import SqlTool, ToolInvalid
from remit_agent_runtime.toolhost.obligations import Bounds
from remit_agent_runtime.toolhost.refusals import ToolRefused
from remit_agent_runtime.toolhost.sql_schema import read_schema
from remit_agent_runtime.toolhost.sql_shadow import Shadow
from remit_agent_runtime.toolhost.sql_tool import run_statement, statement_of

ENDLESS_ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
ENDLESS_COUNT = ENDLESS_ROWS.replace("SELECT i FROM", "SELECT count(*) FROM")
MANY_ROWS = "WITH t(v) AS (VALUES {}) SELECT 1 FROM t, t, t, t".format(",".join(f"({i})" for i in range(11)))
WIDE_ROWS = ENDLESS_ROWS.replace("SELECT i FROM n", "SELECT printf('%100d', i) FROM n LIMIT 100")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO flights (carrier) VALUES ('XX')",
        "DELETE FROM flights",
        "UPDATE flights SET carrier = 'XX'",
        "DROP TABLE flights",
        "CREATE TABLE x (a)",
        "CREATE TEMP VIEW flights AS SELECT 1",
        "ATTACH '/tmp/x.sqlite' AS x",
        "DETACH temp",
        "PRAGMA table_info(flights)",
        "PRAGMA query_only = OFF",
        "VACUUM INTO '/tmp/copy.sqlite'",
        "EXPLAIN SELECT * FROM flights",
        "EXPLAIN QUERY PLAN SELECT * FROM flights",
        "  -- a comment\n /* and another */ explain SELECT 1",
        "BEGIN",
        "REPLACE INTO flights (carrier) VALUES ('XX')",
        "WITH x AS (SELECT 1) DELETE FROM flights",
        "WITH x AS (SELECT 'XX' AS c) INSERT INTO flights (carrier) SELECT c FROM x",
        "WITH x AS (SELECT 1) UPDATE flights SET carrier = 'XX'",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('/tmp/x', 'y')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT sqlite_compileoption_get(1)",
        "SELECT randomblob(100)",
        "SELECT * FROM fts5vocab('notes', 'row')",
        "",
        ";",
        "-- nothing",
        "/* never closed",
    ],
)
def test_nothing_but_a_select_is_run(rig: Rig, sql: str) -> None:
    source = rig.home / "sources/acme/flights.sqlite"
    before = hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(ToolRefused) as refused:
        run(rig, sql)
    assert refused.value.refusal_code in {"tool.forbidden_statement", "tool.bad_arguments", "tool.bad_statement"}
    assert hashlib.sha256(source.read_bytes()).hexdigest() == before
    assert sorted(path.name for path in source.parent.iterdir()) == [source.name]


def test_two_statements_in_one_are_refused(rig: Rig) -> None:
    with pytest.raises(ToolRefused, match="one statement"):
        run(rig, "SELECT 1; SELECT 2")


def test_json_table_functions_and_window_functions_are_allowed(rig: Rig) -> None:
    assert run(rig, "SELECT value FROM json_each('[1, 2]')").content["rows"] == [[1], [2]]
    ranked = run(rig, "SELECT row_number() OVER (ORDER BY flight DESC) FROM flights")
    assert len(ranked.content["rows"]) == 4


def test_bytes_in_a_cell_say_only_how_many_they_are(rig: Rig) -> None:
    assert run(rig, "SELECT x'00ff', 1.5, NULL, 'a'").content["rows"] == [[{"bytes": 2}, 1.5, None, "a"]]


def test_rows_over_the_cap_are_cut_and_counted(rig: Rig) -> None:
    result = run(rig, "SELECT flight FROM flights ORDER BY flight", Bounds(max_rows=3))
    assert result.content == {"columns": ["flight"], "rows": [[1], [2], [3]], "truncated": True}
    assert result.withheld == {"fields": [], "rows_cut": 1, "row_filters": []}
    assert run(rig, "SELECT flight FROM flights", Bounds(max_rows=4)).withheld == {}
    assert run(rig, "SELECT flight FROM flights", Bounds(max_rows=0)).withheld["rows_cut"] == 4
    assert len(run(rig, "SELECT flight FROM flights", Bounds(max_rows=9), max_rows=2).content["rows"]) == 2


FOLDS = [
    "SELECT group_concat(dest) FROM flights",
    "SELECT GROUP_CONCAT(DISTINCT dest) FROM flights",
    "SELECT carrier, group_concat(dest, '|') FILTER (WHERE flight > 0) FROM flights GROUP BY carrier",
    "SELECT group_concat(dest) OVER (ORDER BY flight) FROM flights ORDER BY flight DESC LIMIT 1",
    "SELECT json_group_array(dest) FROM flights",
    "SELECT json_group_array(dest) OVER () FROM flights LIMIT 1",
    "SELECT json_group_object(flight, dest) FROM flights",
    "SELECT length(x) FROM (SELECT group_concat(dest) AS x FROM flights)",
    "SELECT (SELECT group_concat(dest) FROM flights)",
    "WITH folded(x) AS (SELECT group_concat(dest) FROM flights) SELECT x FROM folded",
    "WITH RECURSIVE c(n, x) AS (SELECT 0, '' UNION ALL SELECT n + 1, x || dest FROM c JOIN flights ON flight = n + 1)"
    " SELECT x FROM c ORDER BY n DESC LIMIT 1",
    "WITH c(n, x) AS (SELECT 0, '' UNION ALL SELECT n + 1, x || dest FROM c JOIN flights ON flight = n + 1)"
    " SELECT max(x) FROM c",
]


@pytest.mark.parametrize("sql", FOLDS)
def test_a_cap_on_rows_is_not_passed_by_folding_rows_into_one_value(rig: Rig, sql: str) -> None:
    assert len(run(rig, sql, max_rows=5).content["rows"]) > 0  # the tool's own cap is for size, and forbids nothing
    with pytest.raises(ToolRefused, match=r"can fold many rows .* \(max_rows\): select the rows themselves") as refused:
        run(rig, sql, Bounds(max_rows=5))
    assert refused.value.refusal_code == "tool.forbidden_statement"


def test_whatever_folds_rows_in_any_version_of_sqlite_is_refused_under_a_cap_on_rows(rig: Rig) -> None:
    schema = read_schema(rig.home / "sources/acme/flights.sqlite")
    capped = Shadow(schema, Bounds(max_rows=0), frozenset())
    for name in ("string_agg", "STRING_AGG", "jsonb_group_array", "jsonb_group_object", "group_concat"):
        assert capped.authorize(sqlite3.SQLITE_FUNCTION, None, name, None, None) == sqlite3.SQLITE_DENY
        assert capped.folding == name.lower()
    for name in ("count", "sum", "max", "row_number", "json_array"):
        assert capped.authorize(sqlite3.SQLITE_FUNCTION, None, name, None, None) == sqlite3.SQLITE_OK


def test_under_a_cap_on_rows_what_gives_one_number_of_many_rows_still_answers(rig: Rig) -> None:
    sql = "SELECT count(*), sum(flight), min(dest), avg(flight), total(flight) FROM flights"
    assert run(rig, sql, Bounds(max_rows=1)).content["rows"] == [[4, 10, "ATL", 2.5, 10.0]]
    sql = "SELECT min(dest), max(dest) FROM flights"  # these are two rows' values
    assert run(rig, sql, Bounds(max_rows=2)).content["rows"] == [["ATL", "SFO"]]
    ranked = "SELECT flight, rank() OVER (ORDER BY flight) FROM flights"
    assert len(run(rig, ranked, Bounds(max_rows=2)).content["rows"]) == 2


def test_the_count_of_cut_rows_is_bounded(rig: Rig) -> None:
    result = run(rig, MANY_ROWS, Bounds(max_rows=1))
    assert result.withheld["rows_cut"] == 10_000


def test_bytes_over_the_cap_cut_the_rest(rig: Rig) -> None:
    result = run(rig, WIDE_ROWS, max_bytes=1_024)
    assert 0 < len(result.content["rows"]) < 11
    assert result.content["truncated"] is True


def test_an_endless_statement_is_stopped_at_the_tools_own_limit(rig: Rig) -> None:
    with pytest.raises(ToolRefused) as refused:
        run(rig, ENDLESS_COUNT, statement_seconds=0.1)
    assert refused.value.refusal_code == "tool.timeout"


def test_a_statement_that_nobody_waits_for_any_more_is_stopped(rig: Rig) -> None:
    stopped = threading.Event()
    stopped.set()
    definition = SqlTool(id="sql", source="sources/acme/flights.sqlite", statement_seconds=60)
    sql = statement_of({"sql": ENDLESS_COUNT})
    deadline = time.monotonic() + 50
    with pytest.raises(ToolRefused) as refused:
        run_statement(definition, rig.home, sql, Bounds(), deadline=deadline, stopped=stopped)
    assert refused.value.refusal_code == "tool.timeout"
    assert time.monotonic() < deadline, "it was stopped by its deadline only"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT replace(printf('%60000d', 1), ' ', 'aaaaaaaaaaaaaaaa')",
        "SELECT hex(printf('%60000d', 1))",
        "SELECT group_concat(printf('%60000d', flight)) FROM flights",
        "SELECT 'a' LIKE '" + "%a" * 60 + "'",
        "SELECT " + ", ".join("1" for _ in range(501)),
        "SELECT " + "(" * 250 + "1" + ")" * 250,
        "SELECT 1" + " UNION ALL SELECT 1" * 60,
        "SELECT ?",
        "SELECT :name",
    ],
)
def test_a_statement_that_asks_for_too_much_is_refused(rig: Rig, sql: str) -> None:
    with pytest.raises(ToolRefused) as refused:
        run(rig, sql)
    assert refused.value.refusal_code in {"tool.bad_statement", "tool.result_too_large"}


@pytest.mark.parametrize(
    "arguments",
    [{}, {"sql": 1}, {"sql": None}, {"sql": ["SELECT 1"]}, {"sql": "SELECT 1", "extra": 1}, {"query": "SELECT 1"},
     {"sql": "SELECT " + "1" * 20_000}],
)  # fmt: skip
def test_arguments_of_another_shape_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ToolRefused) as refused:
        statement_of(arguments)
    assert refused.value.refusal_code == "tool.bad_arguments"


def test_a_bad_statement_is_told_with_the_tables_that_there_are(rig: Rig) -> None:
    with pytest.raises(ToolRefused, match=r"no such table: fligths \(tables: .*flights") as refused:
        run(rig, "SELECT * FROM fligths")
    assert refused.value.refusal_code == "tool.bad_statement"


def test_a_source_that_is_no_database_is_told_without_a_traceback(rig: Rig) -> None:
    Path(rig.home / "sources/acme/flights.sqlite").write_text("this is no database, whatever its name says" * 40)
    with pytest.raises(ToolInvalid, match=r"flights\.sqlite cannot be read"):
        run(rig, "SELECT 1")


def test_a_source_that_cannot_stand_behind_views_is_refused_when_it_is_read(rig: Rig) -> None:
    with closing(sqlite3.connect(rig.home / "sources/acme/flights.sqlite")) as connection:
        connection.execute("CREATE VIEW qualified AS SELECT tailnum FROM main.flights")
    with pytest.raises(ToolInvalid, match="cannot reference objects in database main"):
        run(rig, "SELECT 1")


def test_a_source_is_never_made_by_reading_it(rig: Rig) -> None:
    source = rig.home / "sources/acme/flights.sqlite"
    source.unlink()
    with pytest.raises(ToolInvalid):
        run(rig, "SELECT 1")
    assert not source.exists()
