"""A cap on rows bounds the rows of a table of which an answer tells, however the statement puts them into it."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.toolhost.rig import Rig, make_rig
from unit.toolhost.test_sql_withholding import outcome, run

from remit_agent_runtime.toolhost.obligations import Bounds
from remit_agent_runtime.toolhost.refusals import ToolRefused
from remit_agent_runtime.toolhost.sql_provenance import AGGREGATES, Uncountable, weigh
from remit_agent_runtime.toolhost.sql_schema import read_schema
from remit_agent_runtime.toolhost.sql_shadow import FOLDING, FUNCTIONS

CAP = 4
PEOPLE = 24
NAME = re.compile(r"[fnv]\d\dx")
"""A value shows which column it is of, and whose: no two people share one."""

SOURCE = f"""
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, team TEXT, pay INTEGER, "over" TEXT, "first" TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {PEOPLE})
INSERT INTO people SELECT i, printf('n%02dx', i), 't' || (i % 3), i * 10, printf('v%02dx', i), printf('f%02dx', i)
FROM n;
CREATE VIEW pairs AS SELECT a.name AS one, b.name AS two FROM people AS a JOIN people AS b ON b.id = a.id + 1;
CREATE VIEW "wide view" (a, b) AS SELECT max(name) FILTER (WHERE id = 1), max(name) FILTER (WHERE id = 2) FROM people;
"""
PLACES = range(1, PEOPLE + 1)


def each(form: str, *, between: str = ", ") -> str:
    """The form for each person, `{}` being the number."""
    return between.join(form.replace("{}", str(number)) for number in PLACES)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    rig = make_rig(tmp_path_factory.mktemp("people"))
    with closing(sqlite3.connect(rig.home / "sources/acme/flights.sqlite")) as connection:
        connection.executescript(SOURCE)
    return rig


def told(rig: Rig, sql: str, cap: int | None) -> int:
    """Of how many people the answer, or the refusal, tells by one column; a statement names nobody itself."""
    assert not NAME.search(sql)
    found = set(NAME.findall(outcome(rig, sql, Bounds(max_rows=cap))))
    return max(Counter(value[0] for value in found).values(), default=0)


NUMBERS = ", ".join(f"1 AS c{number}" for number in range(1, 15))
"""As many columns as SQLite shows of json_each and a person: of json_each, it hides two."""

ATTACKS = [
    "SELECT name FROM people",
    f"SELECT {each('max(CASE WHEN id = {} THEN name END)')} FROM people",
    f"SELECT {each('max(name) FILTER (WHERE id = {})')} FROM people",
    f"SELECT {each('min(iif(id = {}, name, NULL))', between=' || ')} FROM people",
    "SELECT " + each('"max"(CASE WHEN id = {} THEN people.name END)') + " FROM people",
    f"SELECT {each('[max](CASE id WHEN {} THEN [name] END)')} FROM temp.people AS people",
    f"SELECT {each('(SELECT name FROM people LIMIT 1 OFFSET {} - 1)')}",
    f"SELECT {each('(SELECT name FROM people WHERE id = {})', between=' || ')}",
    f"SELECT json_array({each('(SELECT name FROM people WHERE id = {})')})",
    f"SELECT printf('%s' || {each('(SELECT name FROM people WHERE id = {})', between=' || ')})",
    f"SELECT replace('x', 'x', {each('(SELECT name FROM people WHERE id = {})', between=' || ')})",
    f"VALUES ({each('(SELECT name FROM people WHERE id = {})')})",
    f"VALUES {each('((SELECT name FROM people WHERE id = {}))')}",
    f"SELECT 1 WHERE 0 UNION ALL {each('SELECT name FROM people WHERE id = {}', between=' UNION ALL ')}",
    f"SELECT {each('lag(name, {} - 1) OVER (ORDER BY id)')} FROM people ORDER BY id DESC LIMIT 1",
    f"SELECT {each('lead(name, {} - 1) OVER w')} FROM people WINDOW w AS (ORDER BY id) ORDER BY id LIMIT 1",
    f"SELECT {each('nth_value(name, {}) OVER w')} FROM people WINDOW w AS () LIMIT 1",
    "SELECT first_value(name) OVER w, last_value(name) OVER w, name FROM people WINDOW w AS (PARTITION BY id / 3)",
    "SELECT min(name), max(name) FROM people GROUP BY id / 2",
    "SELECT name, min(name), max(name) FROM people GROUP BY id / 3",
    f"SELECT {each('t{}.name')} FROM {each('people AS t{}')} WHERE {each('t{}.id = {}', between=' AND ')}",
    "SELECT a.name, b.name FROM people a JOIN people b ON b.id = a.id + 1 WHERE a.id % 2",
    "SELECT * FROM people a, people b WHERE b.id = a.id + 12",
    "SELECT one, two FROM pairs",
    "SELECT * FROM pairs AS p CROSS JOIN pairs AS q",
    'SELECT p.*, q.* FROM "wide view" AS p, pairs AS q',
    f"WITH c AS (SELECT name, id FROM people) SELECT {each('max(CASE WHEN id = {} THEN name END)')} FROM c",
    f"WITH c(i, n) AS MATERIALIZED (SELECT id, name FROM people) SELECT {each('(SELECT n FROM c WHERE i = {})')}",
    "WITH a AS (SELECT x.id, x.name || y.name AS n FROM people x JOIN people y ON y.id = x.id + 1),"
    " b AS (SELECT x.id, x.n || y.n AS n FROM a x JOIN a y ON y.id = x.id + 2),"
    " c AS (SELECT x.id, x.n || y.n AS n FROM b x JOIN b y ON y.id = x.id + 4) SELECT n FROM c",
    "SELECT max(CASE WHEN g = 0 THEN a || b END), max(CASE WHEN g = 1 THEN a || b END) FROM"
    " (SELECT id / 2 AS g, min(name) AS a, max(name) AS b FROM people GROUP BY 1)",
    "SELECT max(a || b) FROM (SELECT id / 4 AS g, min(n) AS a, max(n) AS b FROM"
    " (SELECT id, min(name) || max(name) AS n FROM people GROUP BY id / 2) GROUP BY 1)",
    f"SELECT {each('max(c{})')} FROM (SELECT {each('CASE WHEN id = {} THEN name END AS c{}')} FROM people)",
    'SELECT "max(name)", "min(name)", n FROM (SELECT max(name), min(name), name AS n FROM people GROUP BY id / 3)',
    'SELECT name, "name:1", "name:2" FROM (SELECT * FROM people a, people b, people c WHERE b.id = a.id + 1'
    " AND c.id = a.id + 2)",
    "SELECT name FROM (SELECT (name), (SELECT name FROM people LIMIT 1 OFFSET 9) AS o, id FROM people)",
    "SELECT e.value FROM people, json_each(json_array(name)) AS e",
    f"SELECT value FROM json_each(json_array({each('(SELECT name FROM people WHERE id = {})')}))",
    f"SELECT json_extract('{{}}', '$[' || {each('(SELECT name FROM people WHERE id = {})', between=' || ')})",
    "SELECT name FROM people ORDER BY (SELECT name FROM people LIMIT 1)",
    f"SELECT name FROM people LIMIT max({each('(SELECT length(name) FROM people WHERE id = {})')})",
    "SELECT a.name, b.name FROM people AS a LEFT JOIN (people AS b JOIN people AS c USING (id)) ON b.id = a.id + 1",
    "SELECT a.id IS NOT DISTINCT FROM b.id, a.name, b.name FROM people AS a, people AS b WHERE b.id = a.id + 12",
    "SELECT max(name) FILTER (WHERE id = 1) over, name FROM people GROUP BY id % 12",
    'SELECT "over".name, o.name FROM people "over", people AS \'o\' WHERE o.id = "over".id + 12',
    "SELECT name, (SELECT p.name FROM people AS p WHERE p.id = people.id + 12) FROM people",
    "SELECT (WITH c AS (SELECT q.name AS n) SELECT n || name FROM c, people LIMIT 1) FROM people AS q",
    "SELECT max(n) FROM (SELECT name n FROM people UNION ALL SELECT name FROM people) GROUP BY random()",
    f"SELECT {each('max(CASE WHEN random() % 24 = {} THEN name END)')} FROM people",
    "SELECT max(CASE WHEN random() % 9 = 1 THEN name END) a, max(CASE WHEN random() % 9 = 1 THEN name END) b"
    " FROM people GROUP BY id / 4",
    "SELECT * FROM people AS a NATURAL JOIN (SELECT name || 'y' AS other, id - 1 AS id FROM people)",
    "SELECT x.name, y.name FROM people x JOIN people y USING (team)",
    "SELECT name FROM people EXCEPT SELECT name FROM people WHERE id > 12",
    f"SELECT {each('max(CASE WHEN c9 = {} THEN c10 END)')} FROM (SELECT {NUMBERS} UNION ALL"
    " SELECT * FROM json_each('[1]'), people)",
    f"WITH c({NUMBERS.replace('1 AS ', '')}) AS (SELECT * FROM json_each('[1]'), people)"
    f" SELECT {each('max(CASE WHEN c9 = {} THEN c10 END)')} FROM c",
    "WITH left AS (SELECT name AS n, id FROM people), cross AS (SELECT name AS n, id FROM people)"
    " SELECT left.n, cross.n FROM left JOIN cross ON cross.id = left.id + 1",
    f"WITH natural AS (SELECT name AS n, id AS i FROM people) SELECT {each('max(CASE WHEN i = {} THEN n END)')} FROM natural",
    f'SELECT {each("max(CASE WHEN i = {} THEN n END)")} FROM (SELECT o.id AS i, (SELECT "end" FROM (SELECT CASE WHEN 1'
    ' THEN 1 END)) AS n FROM (SELECT id, name AS "end" FROM people) AS o)',
    "SELECT (SELECT people.name || regexp.name FROM people regexp WHERE regexp.id = people.id + 12) FROM people",
    "SELECT (SELECT people.name || window.name FROM people window WHERE window.id = people.id + 12) FROM people",
    "SELECT name, 0xe+id, 1e+1 FROM people, (SELECT max(name) m FROM people) WHERE 1<2 -- m",
]


@pytest.mark.parametrize("sql", ATTACKS)
def test_no_answer_tells_of_more_people_than_the_cap(people: Rig, sql: str) -> None:
    assert told(people, sql, CAP) <= CAP
    assert told(people, sql, 1) <= 1
    assert told(people, sql, 0) == 0


@pytest.mark.parametrize("sql", [sql for sql in ATTACKS if "random" not in sql and "EXCEPT" not in sql])
def test_without_a_cap_the_same_statements_tell_of_somebody(people: Rig, sql: str) -> None:
    """The control: what the cap stops is no statement that fails anyway."""
    assert told(people, sql, None) > 0


GUESSES = ", ".join(f"({number * 10})" for number in PLACES)
HIDDEN = [
    (each("max(CASE WHEN r = {} THEN g END)"), f"FROM (WITH g(pay) AS (VALUES {GUESSES}) SELECT g.pay AS g, row_number()"
     " OVER () AS r FROM people JOIN g USING ('pay'))"),
    (each("sum(CASE WHEN id = {} THEN pay END)"), "FROM people"),
    (each("sum(pay) FILTER (WHERE id = {})"), "FROM people"),
    (each("sum(pay * (id = {}))"), "FROM people"),
    (each("count(*) FILTER (WHERE id = {} AND pay > 100)"), "FROM people"),
    (each("count(CASE WHEN id = {} AND pay > 100 THEN 1 END)"), "FROM people"),
    (each("(SELECT count(*) FROM people WHERE id = {} AND pay > 100)"), ""),
    (each("EXISTS (SELECT 1 FROM people WHERE id = {} AND pay > 100)"), ""),
    (each("({}, 100) IN (SELECT id, pay FROM people)"), ""),
    (each("count(*) OVER (PARTITION BY id = {} AND pay > 100)"), "FROM people LIMIT 1"),
    (each("ntile(1 + (SELECT pay FROM people WHERE id = {})) OVER ()"), "FROM people LIMIT 1"),
    (each("count(c{})"), f"FROM (SELECT {each('CASE WHEN id = {} AND pay > 100 THEN 1 END AS c{}')} FROM people)"),
    (each("max(CASE WHEN r = {} THEN g END)"), "FROM (SELECT row_number() OVER () AS r, v.column1 AS g FROM"
     " (VALUES (10), (20), (30)) AS v JOIN people ON pay = v.column1)"),
]  # fmt: skip
NAMED_WINDOWS = [
    "SELECT count(*) OVER {w} FROM people WINDOW {w} AS (PARTITION BY CASE WHEN id = 7 THEN pay END)",
    "SELECT count(*) OVER ({w}) FROM people WINDOW {w} AS (PARTITION BY CASE WHEN id = 7 THEN pay END)",
]


@pytest.mark.parametrize(("listed", "source"), HIDDEN)
def test_numbers_that_each_tell_of_one_chosen_row_are_counted(people: Rig, listed: str, source: str) -> None:
    sql = f"SELECT {listed} {source}"
    assert len(run(people, sql).content["rows"]) == 1
    with pytest.raises(ToolRefused, match=rf"can tell of \d\d rows .* and this call may tell of {CAP}") as refused:
        run(people, sql, Bounds(max_rows=CAP))
    assert refused.value.refusal_code == "tool.forbidden_statement"


@pytest.mark.parametrize("name", ["w", "window", "over", "'w'", '"id"', "first"])
@pytest.mark.parametrize("form", NAMED_WINDOWS)
def test_a_window_by_a_condition_is_no_mere_count_whatever_it_is_called(people: Rig, name: str, form: str) -> None:
    sql = form.format(w=name)
    assert len(run(people, sql).content["rows"]) == PEOPLE
    assert weigh(sql, read_schema(people.home / "sources/acme/flights.sqlite")).rows > 1


ELEVEN = "a, b, c, d, e, f, g, h, i, j, k"
"""As many columns as SQLite shows of two people who are joined by their team: it shows that but once."""
ELEVEN_NUMBERS = ", ".join(f"1 AS {name}" for name in ELEVEN.split(", "))


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT * FROM people", 1),
        ("SELECT name, upper(name), people.name, substr(name, 1, 2) FROM people WHERE name > 'a' ORDER BY name", 1),
        ("SELECT team, count(*), count(name), count(DISTINCT name) FROM people GROUP BY team ORDER BY 2 DESC", 1),
        ("SELECT team, sum(pay), avg(pay), total(pay), round(avg(pay), 1) FROM people GROUP BY team", 1),
        ("SELECT team, avg(pay) AS pay FROM people GROUP BY team ORDER BY pay DESC LIMIT 3", 1),
        ("SELECT team, avg(pay > 50), avg(id) FROM people GROUP BY team HAVING count(*) > 3", 1),
        ("SELECT team, min(pay), avg(pay), max(pay) FROM people GROUP BY team ORDER BY avg(pay)", 3),
        ("SELECT name, row_number() OVER (PARTITION BY team ORDER BY p.pay DESC) FROM people AS p", 1),
        ("SELECT name FROM people WHERE pay > (SELECT avg(pay) FROM people)", 2),
        ("SELECT team, count(*) FROM people GROUP BY team UNION ALL SELECT name, 1 FROM people", 1),
        ("SELECT 'low', avg(pay) FROM people WHERE pay < 9 UNION SELECT 'high', avg(pay) FROM people WHERE pay > 9", 2),
        ("SELECT p.name, f.dest FROM people AS p JOIN flights AS f ON f.flight = p.id JOIN planes USING (tailnum)", 1),
        ("SELECT 1", 1),
        ("SELECT name FROM people UNION ALL SELECT 1 LIMIT (SELECT length(name) FROM people)", 2),
        ("SELECT max(id), max(id) || max(name) FROM people", 1),
        ("SELECT max(iif(random() > 0, id, 0)), max(iif(random() > 0, id, 0)) FROM people", 2),
        ("SELECT count(*) FROM people AS a NATURAL JOIN people AS b", 2),
        ("SELECT count(*) FROM people AS a JOIN people AS b USING (name)", 2),
        (f"WITH c({ELEVEN}) AS (SELECT * FROM people JOIN people AS p USING (team)) SELECT h FROM c", 2),
        (f"SELECT h FROM (SELECT {ELEVEN_NUMBERS} UNION ALL SELECT * FROM people JOIN people AS p USING (team))", 2),
    ],
)
def test_a_row_of_the_answer_weighs_what_it_can_tell_of(people: Rig, sql: str, rows: int) -> None:
    assert weigh(sql, read_schema(people.home / "sources/acme/flights.sqlite")).rows == rows
    assert run(people, sql, Bounds(max_rows=rows)).content["rows"]


def test_what_is_cut_for_its_weight_is_told(people: Rig) -> None:
    result = run(people, "SELECT min(name), max(name) FROM people GROUP BY id / 2", Bounds(max_rows=5))
    assert (len(result.content["rows"]), result.content["truncated"]) == (2, True)
    assert result.withheld["rows_cut"] == 11


def test_a_statement_that_is_wrong_is_told_so_before_it_is_told_what_it_weighs(people: Rig) -> None:
    sql = f"SELECT {each('max(CASE WHEN id = {} THEN name END)')} FROM people WHERE nobody = 1"
    with pytest.raises(ToolRefused, match="no such column: nobody"):
        run(people, sql, Bounds(max_rows=CAP))


DOUBLED = ", ".join(f"c{number} AS (SELECT a.name FROM c{number - 1} a, c{number - 1} b)" for number in range(1, 40))
SPRAWLING = [
    (f"WITH c0 AS (SELECT name FROM people), {DOUBLED} SELECT 1 FROM c39 LIMIT 1", "more than 200 SELECTs"),
    (f"SELECT {'(' * 3000}1{')' * 3000}", "nested"),
    (f"SELECT {', '.join('*' * 6000)} FROM {', '.join(['people'] * 60)}", "too many times"),
    (f"SELECT {', '.join(['nobody'] * 2000)} FROM {', '.join(['people'] * 60)}", "too many times"),
    (f"SELECT 1 FROM {', '.join(['people'] * 2000)}", "more than 64 tables"),
    (f"WITH c AS (SELECT * FROM {', '.join(['people'] * 60)}), d AS (SELECT * FROM c, c, c, c)"
     f" SELECT {', '.join(['max(name)'] * 900)} FROM d, d, d, d", "too many times"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "why"), SPRAWLING)
def test_a_statement_that_grows_without_end_is_refused_with_a_code(people: Rig, sql: str, why: str) -> None:
    with pytest.raises(Uncountable, match=why):
        weigh(sql, read_schema(people.home / "sources/acme/flights.sqlite"))
    with pytest.raises(ToolRefused) as refused:
        run(people, sql, Bounds(max_rows=CAP))
    assert refused.value.refusal_code in {"tool.forbidden_statement", "tool.bad_statement", "tool.timeout"}


def test_every_function_that_makes_one_value_of_many_rows_is_known(people: Rig) -> None:
    """SQLite's own list: a window or aggregate function that is taken for a plain one would not be counted."""
    with closing(sqlite3.connect(":memory:")) as connection:
        kinds = connection.execute("SELECT name FROM pragma_function_list WHERE type IN ('a', 'w')").fetchall()
    of_many = {name for (name,) in kinds} & FUNCTIONS
    assert of_many <= AGGREGATES | FOLDING
    assert AGGREGATES <= FUNCTIONS


WORDS = (
    "SELECT FROM WHERE GROUP BY ORDER HAVING LIMIT WITH AS UNION ALL EXCEPT VALUES JOIN NATURAL LEFT ON USING OVER FILTER"
    " WINDOW w PARTITION DISTINCT IN EXISTS CASE WHEN END max min count sum lag rank people pairs c name id pay a b ( ) ( )"
    " , . * + || ' \" [ ] ; 1 'x' \"name\" 0x1 -- /* */ json_each"
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(WORDS.split()), max_size=40))
def test_no_text_makes_the_weighing_fail_otherwise_than_by_refusing(people: Rig, words: list[str]) -> None:
    for sql in (" ".join(words), "SELECT " + " ".join(words) + " FROM people"):
        try:
            weight = weigh(sql, read_schema(people.home / "sources/acme/flights.sqlite"))
        except Uncountable:
            continue
        assert weight.rows >= 1


@st.composite
def expressions(draw: st.DrawFn, columns: list[str], depth: int) -> str:
    """Something that is made of these columns: of one row, of a chosen one, or of several put together."""
    column = draw(st.sampled_from(columns))
    forms = [
        "{c}",
        "max(CASE WHEN {i} % 12 = {k} THEN {c} END)",
        "min({c}) FILTER (WHERE {i} % 12 = {k})",
        "max({c})",
        "lag({c}, {k}) OVER (ORDER BY {i})",
        "nth_value({c}, {k}) OVER (ORDER BY {i} ROWS BETWEEN 9 PRECEDING AND 9 FOLLOWING)",
        "(SELECT s.name FROM people AS s LIMIT 1 OFFSET {k})",
        "(SELECT s.name FROM people AS s WHERE s.id = {i} + {k})",
        "(SELECT max({c} || s.name) FROM people AS s WHERE s.id = {k})",
        "(SELECT {c})",
        "({c}) COLLATE NOCASE",
        "iif({i} % 2, {c}, NULL)",
    ]
    made = draw(st.sampled_from(forms)).format(c=column, i=columns[0], k=draw(st.integers(1, 12)))
    if depth and draw(st.booleans()):
        other = draw(expressions(columns, depth - 1))
        made = draw(st.sampled_from(["({} || {})", "json_array({}, {})", "coalesce({}, '') || {}"])).format(made, other)
    return made


@st.composite
def sources(draw: st.DrawFn, depth: int) -> tuple[str, list[str]]:
    """What stands in a FROM, and its columns, the first of them a number."""
    kind = draw(st.integers(0, 6 if depth else 3))
    if kind == 0:
        return "people", ["id", "name", "people.name", '"first"']
    if kind == 1:
        return "people AS a JOIN people AS b ON b.id = a.id + 1", ["a.id", "a.name", "b.name", 'b."over"']
    if kind == 2:
        return "people a JOIN people b USING (team)", ["a.id", "a.name", "b.name", "team"]
    if kind == 3:
        return "pairs CROSS JOIN (VALUES (1), (2)) AS v", ["column1", "one", "two", "v.column1"]
    inner = draw(queries(depth - 1))
    if kind == 4:
        return f"({inner}) AS q", ["q.k", "n", "m", "q.n"]
    if kind == 5:
        return f"({inner}) AS q JOIN ({draw(queries(depth - 1))}) AS r", ["q.k", "q.n", "r.m", "r.n"]
    return f"(WITH c(k, n, m) AS ({inner}) SELECT x.k, x.n, y.m FROM c AS x, c AS y) AS q", ["k", "n", "m", "q.m"]


@st.composite
def queries(draw: st.DrawFn, depth: int = 2) -> str:
    """A SELECT with the columns k (a number), n and m."""
    source, columns = draw(sources(depth))
    made = [draw(expressions(columns, depth)) for _ in range(2)]
    condition = draw(st.sampled_from(["", "WHERE {0} > 3", "GROUP BY {0} / 3", "GROUP BY {0} % 2", "GROUP BY {1}"]))
    query = f"SELECT {columns[0]} AS k, {made[0]} AS n, {made[1]} AS m FROM {source} {condition.format(*columns)}"
    end = draw(
        st.sampled_from(["", "", " ORDER BY n", " LIMIT 3", " UNION ALL SELECT id, team, name FROM people", "star"])
    )
    return f"SELECT * FROM ({query})" if end == "star" else query + end


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(queries(), st.integers(1, 9))
def test_no_statement_that_can_be_made_up_tells_of_more_people_than_the_cap(people: Rig, sql: str, cap: int) -> None:
    assert told(people, sql, cap) <= cap


def test_a_refusal_quotes_no_value_where_no_row_may_be_told_of(people: Rig) -> None:
    sql = "SELECT json_extract('{}', '$[' || name) FROM people"
    assert "n01x" in outcome(people, sql, Bounds(max_rows=1))
    refused = outcome(people, sql, Bounds(max_rows=0))
    assert refused.startswith("tool.bad_statement: the statement cannot be run")
