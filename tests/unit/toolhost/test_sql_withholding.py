"""Masks and row filters against statements that try to get around them."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from contextlib import closing
from typing import Any

import pytest
from unit.toolhost.rig import Rig

from remit_agent_runtime.toolhost.definitions import SqlTool
from remit_agent_runtime.toolhost.obligations import Bounds, RowFilter
from remit_agent_runtime.toolhost.refusals import ToolRefused
from remit_agent_runtime.toolhost.sql_schema import read_schema
from remit_agent_runtime.toolhost.sql_shadow import Shadow
from remit_agent_runtime.toolhost.sql_tool import SqlResult, run_statement, statement_of

TAILS = ("N1UA", "N2AA", "N3XX", "n1ua", "n2aa", "n3xx")
OPEN = Bounds()
MASK = Bounds(masked=frozenset({"tailnum"}))
ONLY_UA = Bounds(filters=(RowFilter("carrier", ("UA",)),))


def run(rig: Rig, sql: str, bounds: Bounds = OPEN, **settings: Any) -> SqlResult:
    definition = SqlTool(
        id="sql", source="sources/acme/flights.sqlite", **({"reference_tables": ("planes",)} | settings)
    )
    return run_statement(
        definition,
        rig.home,
        statement_of({"sql": sql}),
        bounds,
        deadline=time.monotonic() + 5,
        stopped=threading.Event(),
    )


def outcome(rig: Rig, sql: str, bounds: Bounds) -> str:
    """All that a caller sees: rows and names, or the refusal."""
    try:
        return repr(run(rig, sql, bounds))
    except ToolRefused as refusal:
        return f"{refusal.refusal_code}: {refusal.reason}"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT tailnum FROM flights",
        "SELECT tailnum AS x FROM flights",
        "SELECT * FROM flights",
        "SELECT f.* FROM flights AS f",
        "SELECT TAILNUM FROM FLIGHTS",
        'SELECT "tailnum", [tailnum], `tailnum` FROM flights',
        "SELECT carrier || '-' || tailnum FROM flights",
        "SELECT substr(tailnum, 1, 2) || substr(tailnum, 3) FROM flights",
        "SELECT upper(hex(tailnum)) FROM flights",
        "SELECT max(tailnum), min(tailnum), group_concat(tailnum) FROM flights",
        "SELECT json_group_array(tailnum) FROM flights",
        "SELECT first_value(tailnum) OVER (ORDER BY flight) FROM flights",
        "SELECT (SELECT tailnum FROM flights AS i WHERE i.flight = o.flight) FROM flights AS o",
        "SELECT (SELECT o.tailnum) FROM flights AS o",
        "SELECT x FROM (SELECT tailnum AS x FROM flights)",
        "WITH c AS (SELECT tailnum AS x FROM flights) SELECT x FROM c",
        "WITH RECURSIVE c(x) AS (SELECT tailnum FROM flights UNION SELECT x || '!' FROM c LIMIT 9) SELECT x FROM c",
        "SELECT x FROM late",
        "SELECT * FROM late",
        "SELECT owner_hint FROM flights",
        "SELECT 1 UNION SELECT tailnum FROM flights",
        "SELECT tailnum FROM planes",
        "SELECT rowid, _rowid_, oid FROM planes",
        "SELECT carrier FROM flights GROUP BY tailnum HAVING tailnum IS NOT NULL",
        "SELECT count(DISTINCT tailnum), typeof(max(tailnum)) FROM flights",
        "SELECT carrier, flight FROM flights WHERE tailnum = 'N1UA'",
        "SELECT carrier, flight FROM flights WHERE tailnum LIKE 'N1%'",
        "SELECT carrier, flight FROM flights WHERE 'N1UA' IN (SELECT tailnum FROM flights)",
        "SELECT carrier, flight FROM flights WHERE CASE tailnum WHEN 'N1UA' THEN 1 END",
        "SELECT carrier, flight FROM flights WHERE (carrier, tailnum) = ('UA', 'N1UA')",
        "WITH g(tailnum) AS (VALUES ('N1' || 'UA')) SELECT carrier, flight FROM flights JOIN g USING (tailnum)",
        "WITH g(tailnum) AS (VALUES ('N1' || 'UA')) SELECT carrier, flight FROM flights NATURAL JOIN g",
        "SELECT carrier, flight, seats FROM flights JOIN planes USING (tailnum)",
        "SELECT carrier, flight, seats FROM flights NATURAL JOIN planes",
        "WITH g(x) AS (VALUES ('N1' || 'UA')) SELECT carrier, flight FROM flights, g WHERE tailnum IS x",
        "WITH g(tailnum) AS (VALUES (77)) SELECT model FROM aircraft NATURAL JOIN g",
        "SELECT 'N1' || 'UA' IN (SELECT tailnum FROM flights) AND 'UA', 1",
        "WITH g(tailnum) AS (VALUES ('N1' || 'UA')) SELECT count(*) + 76 FROM notes NATURAL JOIN g",
        "SELECT model FROM aircraft WHERE rowid = 77",
        "SELECT rowid + 0 AS r, oid, model FROM aircraft WHERE model IS NULL",
        'SELECT tailnum FROM "odd ""name"',
        "SELECT tailnum FROM notes",
        "SELECT body, tailnum FROM notes WHERE notes MATCH 'N1UA'",
        "SELECT sample FROM sqlite_stat4",
        "SELECT main.flights.tailnum FROM main.flights",
        "WITH flights AS (SELECT tailnum FROM main.flights) SELECT tailnum FROM flights",
        "WITH flights AS (SELECT x AS tailnum FROM late) SELECT * FROM flights",
    ],
)
def test_a_masked_column_is_never_shown_nor_guessed(rig: Rig, sql: str) -> None:
    seen = outcome(rig, sql, MASK)
    assert not any(tail in seen.replace(sql, "") for tail in TAILS), seen
    assert not {"['UA', 1]", "['UA', 1, 100]"} & set(re.findall(r"\[[^][]*\]", seen)), (
        f"the statement found out which flight N1UA flew: {seen}"
    )
    assert "A320" not in seen
    assert "77" not in seen


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT tailnum FROM flights ORDER BY flight", "N1UA"),
        ("SELECT x FROM late", "N1UA"),
        ("SELECT owner_hint FROM flights", "n1ua"),
        ("SELECT carrier, flight, seats FROM flights JOIN planes USING (tailnum)", "'UA', 1"),
        ("WITH g(tailnum) AS (VALUES ('N1UA')) SELECT carrier, flight FROM flights NATURAL JOIN g", "'UA', 1"),
        ("SELECT model FROM aircraft WHERE tailnum = 77", "A320"),
        ('SELECT tailnum FROM "odd ""name"', "N9"),
    ],
)
def test_without_the_obligation_the_same_statements_answer(rig: Rig, sql: str, shown: str) -> None:
    """The control: the attacks above fail because of the mask and not because they are wrong."""
    assert shown in outcome(rig, sql, OPEN)
    assert shown not in outcome(rig, sql, MASK)


def test_what_was_masked_is_told_and_what_was_not_asked_for_is_not(rig: Rig) -> None:
    asked = run(rig, "SELECT carrier, tailnum FROM flights ORDER BY flight", MASK)
    assert asked.content["rows"][0] == ["UA", None]
    assert asked.withheld == {"fields": ["tailnum"], "rows_cut": 0, "row_filters": []}
    assert run(rig, "SELECT carrier FROM flights", MASK).withheld == {}
    assert run(rig, "SELECT x FROM late", MASK).withheld["fields"] == ["tailnum"]
    assert run(rig, "SELECT * FROM flights", MASK).withheld["fields"] == ["owner_hint", "tailnum"]


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT carrier, seats FROM flights NATURAL JOIN planes", ["owner_hint", "tailnum"]),
        ("SELECT carrier, seats FROM flights JOIN planes USING (tailnum)", ["tailnum"]),
        ('SELECT carrier FROM flights LEFT JOIN planes USING("TailNum")', ["tailnum"]),
        ("WITH g(tailnum) AS (VALUES ('N1UA')) SELECT count(*) FROM planes NATURAL JOIN g", ["tailnum"]),
        ("WITH g AS (SELECT * FROM planes) SELECT seats FROM g natural/**/join planes", ["tailnum"]),
        ("SELECT carrier FROM paired", ["owner_hint", "tailnum"]),
        ("WITH g(who) AS (VALUES ('zoe')) SELECT amount FROM salaries NATURAL JOIN g", []),
        ("SELECT f.carrier FROM flights AS f JOIN flights AS g USING (flight)", []),
        ('SELECT seats FROM "odd ""name" NATURAL JOIN planes', ["tailnum"]),
    ],
)
def test_a_masked_column_that_a_join_by_name_may_compare_is_told(rig: Rig, sql: str, told: list[str]) -> None:
    with closing(sqlite3.connect(rig.home / "sources/acme/flights.sqlite")) as connection:
        connection.execute("CREATE VIEW paired AS SELECT carrier FROM flights NATURAL JOIN planes")
    assert run(rig, sql, MASK).withheld.get("fields", []) == told
    assert run(rig, sql, OPEN).withheld == {}


def test_a_mask_may_name_one_table_only_and_cases_do_not_matter(rig: Rig) -> None:
    bounds = Bounds(masked=frozenset({"flights.tailnum"}))
    assert run(rig, "SELECT max(tailnum) FROM flights", bounds).content["rows"] == [[None]]
    assert run(rig, "SELECT max(TailNum) FROM Planes", bounds).content["rows"] == [["N3XX"]]


def test_a_view_that_shows_a_masked_name_is_not_offered(rig: Rig) -> None:
    with pytest.raises(ToolRefused) as refused:
        run(rig, "SELECT x FROM late", Bounds(masked=frozenset({"x"})))
    assert "late" not in refused.value.reason


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM flights",
        "SELECT * FROM main.flights",
        "SELECT * FROM temp.flights",
        "SELECT * FROM late",
        "SELECT f.dest, f.carrier FROM flights AS f WHERE 1 OR carrier = 'AA'",
        "SELECT dest FROM flights UNION ALL SELECT dest FROM flights",
        "WITH flights AS (SELECT * FROM main.flights) SELECT * FROM flights",
        "WITH late AS (SELECT dest FROM flights) SELECT * FROM late",
        "SELECT group_concat(dest) FROM flights",
        "SELECT max(dest), min(dest), max(flight) FROM flights",
        "SELECT dest FROM flights WHERE carrier COLLATE NOCASE = 'ua'",
        "SELECT (SELECT group_concat(dest) FROM flights)",
        "SELECT p.seats, f.dest FROM planes AS p LEFT JOIN flights AS f ON f.tailnum = p.tailnum",
        "SELECT p.seats, f.dest FROM planes AS p FULL JOIN flights AS f ON f.flight > 0",
        "SELECT dest FROM flights INDEXED BY by_tail WHERE tailnum > ''",
        "SELECT who, amount FROM salaries",
        "WITH g(who) AS (VALUES ('z' || 'oe')) SELECT count(*) + 999 AS n FROM salaries NATURAL JOIN g",
        "WITH g(who) AS (VALUES ('z' || 'oe')) SELECT count(*) + 999 AS n FROM salaries JOIN g USING (who)",
        "WITH g(who) AS (VALUES ('z' || 'oe')) SELECT 999 + 1 AS n FROM g NATURAL JOIN salaries",
        "SELECT ('z' || 'oe', 999 + 1) IN salaries AND 'yes'",
        "SELECT count(*) + 999 AS n FROM notes_content",
        "WITH g(id) AS (VALUES (1)) SELECT count(*) + 999 AS n FROM notes_content NATURAL JOIN g",
        "WITH g(tbl) AS (VALUES ('flights')) SELECT count(*) + 999 AS n FROM sqlite_stat1 NATURAL JOIN g",
        "WITH g(name) AS (VALUES ('salaries')) SELECT count(*) + 999 AS n FROM pragma_table_list NATURAL JOIN g",
        "WITH flights AS (SELECT who, amount FROM salaries) SELECT * FROM flights",
        'SELECT "select" FROM "odd ""name"',
        "SELECT model FROM aircraft",
        "SELECT name, sql FROM sqlite_master",
        "SELECT name, sql FROM temp.sqlite_master",
        "SELECT name, sql FROM sqlite_temp_schema",
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM pragma_table_list",
        "SELECT * FROM pragma_table_info('flights')",
        "SELECT * FROM dbstat",
        "SELECT * FROM sqlite_dbpage",
    ],
)
def test_rows_outside_the_filter_are_never_shown_nor_counted(rig: Rig, sql: str) -> None:
    seen = outcome(rig, sql, ONLY_UA)
    for hidden in ("MIA", "LAX", "ATL", "zoe", "1000", "odd'", "A320", "CREATE"):
        assert hidden not in seen.replace(sql, ""), seen


def test_the_filter_holds_for_counts_and_is_told(rig: Rig) -> None:
    result = run(rig, "SELECT count(*) FROM flights", ONLY_UA)
    assert result.content["rows"] == [[1]]
    assert result.withheld == {"fields": [], "rows_cut": 0, "row_filters": ["flights.carrier"]}
    assert run(rig, "SELECT count(*) FROM flights").content["rows"] == [[4]]


ROUTES = """
CREATE TABLE routes (origin TEXT, dest TEXT);
INSERT INTO routes VALUES ('JFK', 'BOS'), ('EWR', 'ALB'), ('EWR', 'MHT');
CREATE INDEX by_dest ON routes (dest);
"""
FAILS = "abs(iif(dest = 'ALB', -9223372036854775807 - 1, 1))"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM routes WHERE dest IN ('ALB', 'MHT') AND json_extract('{}', '$[' || dest) IS NULL",
        "SELECT count(*) FROM routes WHERE dest < 'B' AND json_extract('{}', '$[' || dest) IS NULL",
        f"SELECT origin FROM routes WHERE dest BETWEEN 'A' AND 'B' AND {FAILS}",
        f"SELECT p.seats FROM planes AS p JOIN routes AS r ON r.dest < 'B' AND {FAILS}",
        f"SELECT p.seats FROM planes AS p LEFT JOIN routes AS r ON r.dest < 'B' AND {FAILS}",
        f"SELECT EXISTS (SELECT 1 FROM routes WHERE dest < 'B' AND {FAILS})",
        f"WITH r AS NOT MATERIALIZED (SELECT * FROM routes) SELECT count(*) FROM r WHERE dest < 'B' AND {FAILS}",
    ],
)
def test_a_condition_is_never_tried_on_a_row_that_the_filter_hides(rig: Rig, sql: str) -> None:
    """It would fail there, and the error alone tells that there is such a row, and what it holds."""
    with closing(sqlite3.connect(rig.home / "sources/acme/flights.sqlite")) as connection:
        connection.executescript(ROUTES)
    assert outcome(rig, sql, OPEN).startswith("tool.bad_statement: "), "the control: it does fail on such a row"
    assert outcome(rig, sql, Bounds(filters=(RowFilter("origin", ("JFK",)),))).startswith("SqlResult")


def test_a_reference_table_stays_whole_and_other_tables_without_the_column_are_hidden(rig: Rig) -> None:
    assert run(rig, "SELECT count(*) FROM planes", ONLY_UA).content["rows"] == [[3]]
    with pytest.raises(ToolRefused, match=r"tables offered \(flights, planes, late\)"):
        run(rig, "SELECT * FROM salaries", ONLY_UA)


def test_several_filters_hold_together(rig: Rig) -> None:
    both = Bounds(filters=(RowFilter("carrier", ("UA", "AA")), RowFilter("flights.flight", (2, 3))))
    assert run(rig, "SELECT flight FROM flights", both).content["rows"] == [[2]]


def test_a_filter_on_a_masked_column_filters_without_showing_it(rig: Rig) -> None:
    bounds = Bounds(masked=frozenset({"tailnum"}), filters=(RowFilter("flights.tailnum", ("N2AA",)),))
    assert run(rig, "SELECT flight, tailnum FROM flights", bounds).content["rows"] == [[2, None]]


def test_a_filter_value_is_a_value_and_never_sql(rig: Rig) -> None:
    for value in ("UA') OR 1 --", "'", 'UA"', "UA'); DROP TABLE flights; --", "%"):
        assert run(rig, "SELECT count(*) FROM flights", Bounds(filters=(RowFilter("carrier", (value,)),))).content[
            "rows"
        ] == [[0]]


def test_an_empty_filter_lets_nothing_through(rig: Rig) -> None:
    assert run(rig, "SELECT * FROM flights", Bounds(filters=(RowFilter("carrier", ()),))).content["rows"] == []


def test_a_filter_that_fits_no_table_refuses_the_call(rig: Rig) -> None:
    with pytest.raises(ToolRefused) as refused:
        run(rig, "SELECT 1", Bounds(filters=(RowFilter("region", ("west",)),)))
    assert refused.value.refusal_code == "tool.unenforceable_obligation"


def test_even_with_the_secret_names_known_only_the_views_read_the_source(rig: Rig) -> None:
    """The second wall: the authorizer refuses the source to everything but the inner views."""
    shadow = Shadow(read_schema(rig.home / "sources/acme/flights.sqlite"), MASK, frozenset())
    allowed = shadow.authorize(
        sqlite3.SQLITE_READ, "flights", "carrier", shadow.source, f"t{shadow.source[1:]}_flights"
    )
    assert allowed == sqlite3.SQLITE_OK
    for table, column, accessor in [
        ("flights", "carrier", None),
        ("flights", "carrier", "flights"),
        ("flights", "tailnum", f"t{shadow.source[1:]}_flights"),
        ("salaries", "who", f"t{shadow.source[1:]}_flights"),
        ("sqlite_master", "sql", None),
    ]:
        assert shadow.authorize(sqlite3.SQLITE_READ, table, column, shadow.source, accessor) == sqlite3.SQLITE_DENY
    assert shadow.authorize(sqlite3.SQLITE_READ, "flights", "carrier", "main", None) == sqlite3.SQLITE_DENY
    assert shadow.authorize(sqlite3.SQLITE_READ, "salaries", "who", "temp", None) == sqlite3.SQLITE_OK
    assert shadow.authorize(sqlite3.SQLITE_READ, "sqlite_temp_master", "sql", "temp", None) == sqlite3.SQLITE_DENY


def test_the_secret_names_change_with_every_statement_and_are_in_no_error(rig: Rig) -> None:
    schema = read_schema(rig.home / "sources/acme/flights.sqlite")
    assert Shadow(schema, MASK, frozenset()).source != Shadow(schema, MASK, frozenset()).source
    shadow = Shadow(schema, MASK, frozenset())
    token = shadow.source[1:]
    assert token not in shadow.scrubbed(f"access to {shadow.source}.flights.tailnum through t{token}_flights, {token}")
