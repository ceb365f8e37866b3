"""Under the analyst's cap on rows, ordinary questions on the demo's data get the whole answer that they get without it."""

from __future__ import annotations

import threading
import time
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from remit import demo_data
from remit_agent_runtime.toolhost.catalog import Catalog
from remit_agent_runtime.toolhost.definitions import SqlTool
from remit_agent_runtime.toolhost.obligations import Bounds
from remit_agent_runtime.toolhost.sql_tool import SqlResult, run_statement, statement_of

ROLES = tomllib.loads(files("remit.cli").joinpath("default_roles.toml").read_text())
(CAP,) = (each["max_rows"] for each in ROLES["analyst"]["permissions"] if "max_rows" in each)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("home")
    demo_data.install(path)
    return path


def statements_of_agents(home: Path, tenant: str) -> list[str]:
    """What the rules of the demo's analyst ask the tool."""
    script = yaml.safe_load((home / "agents" / tenant / "analyst.yaml").read_text())["script"]
    calls = [call for rule in script if "call" in rule for call in [rule["call"]] if isinstance(call, dict)]
    return [call["args"]["sql"] for call in calls if call["tool"] == "sql"]


def ask(home: Path, tenant: str, sql: str, bounds: Bounds) -> SqlResult:
    tool = Catalog(home).find(tenant, "sql")
    assert isinstance(tool, SqlTool)
    return run_statement(
        tool, home, statement_of({"sql": sql}), bounds, deadline=time.monotonic() + 30, stopped=threading.Event()
    )


FLIGHTS = [
    "SELECT count(*) AS flights FROM flights",
    "SELECT carrier, count(*) AS n FROM flights GROUP BY carrier ORDER BY n DESC",
    "SELECT month, count(*) FROM flights GROUP BY month",
    "SELECT day, count(*) AS flights, round(avg(dep_delay), 1) AS delay FROM flights GROUP BY day ORDER BY day",
    "SELECT dest, count(*) AS n, avg(arr_delay - dep_delay) AS made_up FROM flights GROUP BY dest ORDER BY n DESC",
    "SELECT a.name AS airline, count(*) AS flights, round(avg(f.dep_delay), 1) AS delay FROM flights AS f"
    " JOIN airlines AS a ON a.carrier = f.carrier GROUP BY a.name ORDER BY delay DESC LIMIT 10",
    "SELECT a.name, min(f.dep_delay), avg(f.dep_delay), max(f.dep_delay) FROM flights f JOIN airlines a USING (carrier)"
    " GROUP BY f.carrier",
    "SELECT carrier, avg(dep_delay > 15) AS late, sum(CASE WHEN arr_delay > 60 THEN 1 ELSE 0 END) AS very_late,"
    " count(*) AS n FROM flights GROUP BY carrier HAVING n > 100 ORDER BY late DESC",
    "SELECT carrier, sum(CASE WHEN origin = 'EWR' THEN 1 ELSE 0 END) AS ewr,"
    " sum(CASE WHEN origin = 'JFK' THEN 1 ELSE 0 END) AS jfk, sum(CASE WHEN origin = 'LGA' THEN 1 ELSE 0 END) AS lga"
    " FROM flights GROUP BY carrier",
    "SELECT f.dest, p.name AS airport, count(*) AS flights FROM flights AS f LEFT JOIN airports AS p ON p.faa = f.dest"
    " GROUP BY f.dest ORDER BY flights DESC LIMIT 20",
    "SELECT p.manufacturer, count(DISTINCT p.tailnum) AS planes, round(avg(p.seats)) AS seats, sum(f.distance) AS miles"
    " FROM flights f JOIN planes p ON p.tailnum = f.tailnum GROUP BY p.manufacturer ORDER BY planes DESC",
    "SELECT carrier, flight, origin, dest, dep_delay FROM flights ORDER BY dep_delay DESC LIMIT 25",
    "SELECT origin || '-' || dest AS route, count(*) AS n, sum(distance) / sum(air_time) * 60 AS mph FROM flights"
    " GROUP BY 1 ORDER BY n DESC LIMIT 50",
    "SELECT carrier, dest, n FROM (SELECT carrier, dest, count(*) AS n, row_number() OVER (PARTITION BY carrier"
    " ORDER BY count(*) DESC) AS place FROM flights GROUP BY carrier, dest) WHERE place <= 3 ORDER BY carrier, n DESC",
    "WITH daily AS (SELECT day, count(*) AS n FROM flights GROUP BY day)"
    " SELECT day, n, n - lag(n) OVER (ORDER BY day) AS change, avg(n) OVER () AS mean FROM daily",
    "SELECT max(n), min(n), avg(n) FROM (SELECT day, count(*) AS n FROM flights GROUP BY day)",
    "SELECT carrier, round(100.0 * count(*) / (SELECT count(*) FROM flights), 1) AS share FROM flights GROUP BY carrier",
    "SELECT carrier, flight, dep_delay FROM flights WHERE dep_delay > 20 * (SELECT avg(dep_delay) FROM flights)"
    " ORDER BY dep_delay DESC LIMIT 40",
    "SELECT name FROM airports WHERE faa IN (SELECT dest FROM flights WHERE carrier = 'HA')",
    "SELECT airport, sum(n) FROM (SELECT origin AS airport, count(*) AS n FROM flights GROUP BY origin UNION ALL"
    " SELECT dest, count(*) FROM flights GROUP BY dest) GROUP BY airport ORDER BY 2 DESC LIMIT 30",
    "SELECT CASE WHEN distance < 500 THEN 'short' WHEN distance < 1500 THEN 'middle' ELSE 'long' END AS haul,"
    " count(*), avg(arr_delay) FROM flights GROUP BY haul",
    "SELECT hour, avg(dep_delay) AS delay FROM flights WHERE dep_delay IS NOT NULL GROUP BY hour ORDER BY delay DESC",
    "SELECT DISTINCT origin FROM flights",
    'SELECT * FROM "airlines" LIMIT 5',
]
WEATHER = [
    "SELECT origin, month, round(avg(temp), 1) AS mean, min(temp), max(temp) FROM weather WHERE origin <> 'LGA'"
    " GROUP BY origin, month ORDER BY origin, month",
    "SELECT a.name, round(sum(w.precip), 2) AS inches FROM weather w JOIN airports a ON a.faa = w.origin GROUP BY a.name",
    "SELECT origin, year, month, day, hour, wind_speed, wind_gust FROM weather WHERE wind_speed IS NOT NULL"
    " ORDER BY wind_speed DESC LIMIT 20",
    "SELECT month, count(*) FROM weather GROUP BY month",
    "SELECT month, avg(temp - dewp) AS spread, sum(precip > 0) AS wet_hours FROM weather GROUP BY month ORDER BY month",
]
QUESTIONS = [*(("acme", sql) for sql in FLIGHTS), *(("globex", sql) for sql in WEATHER)]


@pytest.mark.parametrize(("tenant", "sql"), QUESTIONS)
def test_an_ordinary_question_is_answered_in_full_under_the_cap(home: Path, tenant: str, sql: str) -> None:
    capped = ask(home, tenant, sql, Bounds(max_rows=CAP))
    assert capped.content["rows"]
    assert capped == ask(home, tenant, sql, Bounds())


@pytest.mark.parametrize("tenant", demo_data.TENANTS)
def test_what_the_demos_agents_ask_is_answered_in_full_under_the_cap(home: Path, tenant: str) -> None:
    asked = statements_of_agents(home, tenant)
    assert asked
    for sql in asked:
        assert ask(home, tenant, sql, Bounds(max_rows=CAP)) == ask(home, tenant, sql, Bounds()), sql
