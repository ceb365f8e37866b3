"""The scripted model: what it does with a prompt, and that it always says what it is."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_agent_runtime.scripted import NOTICE, Answered, Asked, OfferedTool, Returned, ScriptedModel

SQL = OfferedTool(
    "sql",
    "Answers one SQL SELECT. "
    "Tables: airlines(carrier, name), flights(year, carrier, dep_delay, dest), weather(origin, temp).",
    {"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]},
)
DOCS = OfferedTool(
    "docs",
    "Finds passages.",
    {
        "type": "object",
        "properties": {"query": {"type": "string", "maxLength": 40}, "limit": {"type": "integer"}},
        "required": ["query"],
    },
)
KILOMETRES = OfferedTool(
    "miles-to-km",
    "Converts.",
    {"type": "object", "properties": {"miles": {"type": "number"}}, "required": ["miles"]},
)
DESK = OfferedTool(
    "weather-desk",
    "Asks the desk.",
    {"type": "object", "properties": {"airport": {"enum": ["JFK", "LGA", "EWR"]}}, "required": ["airport"]},
)


def model(*tools: OfferedTool, script: list[dict[str, Any]] | None = None) -> ScriptedModel:
    return ScriptedModel(script or [], tools)


@pytest.mark.parametrize(
    ("prompt", "sql"),
    [
        ("SELECT count(*) FROM flights", "SELECT count(*) FROM flights"),
        ("Please run select * from airlines;", "select * from airlines"),
        ("Run:\n```sql\nSELECT carrier\nFROM flights;\n```\nthanks", "SELECT carrier\nFROM flights"),
        ("run `SELECT 1` for me", "SELECT 1"),
        ("DROP TABLE flights", "DROP TABLE flights"),
        ("with d as (select 1) select * from d", "with d as (select 1) select * from d"),
        ("UPDATE flights SET dest = 'JFK'", "UPDATE flights SET dest = 'JFK'"),
    ],
)
def test_sql_in_a_prompt_goes_to_the_tool_that_takes_sql(prompt: str, sql: str) -> None:
    assert model(DOCS, SQL).respond(prompt, []) == Asked("sql", {"sql": sql})


@pytest.mark.parametrize(
    ("prompt", "table"),
    [
        ("Which airlines are there?", "airlines"),
        ("How late are flights?", "flights"),
        ("What was the temp?", "weather"),
        ("dep_delay by dest", "flights"),
        ("Please select your words with care.", "airlines"),
        ("tell me something", "airlines"),
    ],
)
def test_without_sql_the_table_is_taken_that_the_words_fit_best(prompt: str, table: str) -> None:
    expected = f'SELECT * FROM "{table}" LIMIT 5'
    assert model(SQL).respond(prompt, []) == Asked("sql", {"sql": expected})


@pytest.mark.parametrize(
    "about",
    [
        "Answers one SQL SELECT statement (SQLite dialect).",
        "Answers SELECT (SQLite dialect) on flights(by us) of statement(s), see notes(all).",
        "Tables: none(yet). Answers SELECT(s).",
    ],
)
def test_only_a_table_that_the_tool_lists_is_asked_for(about: str) -> None:
    tool = SQL._replace(description=f'{about} Tables: airlines(carrier, name), odd "gates(gate), weather(origin).')
    for prompt in ("Which statement of the dialect do you select?", "How many gates are there?", "notes by us, all"):
        asked = model(tool).respond(prompt, [])
        assert isinstance(asked, Asked)
        assert asked.arguments["sql"] in ('SELECT * FROM "airlines" LIMIT 5', 'SELECT * FROM "weather" LIMIT 5')


@pytest.mark.parametrize("about", ["Answers one SQL SELECT statement (SQLite dialect).", "SQL (any). Tables: .", ""])
def test_without_a_table_it_says_that_its_rules_do_not_cover_the_question(about: str) -> None:
    answered = model(SQL._replace(description=about)).respond("How many statements are there?", [])
    assert isinstance(answered, Answered)
    assert "My rules do not cover this question" in answered.text
    assert NOTICE in answered.text


def test_a_document_tool_is_asked_the_question_as_long_as_it_may_be() -> None:
    asked = model(DOCS).respond("How does a lease end? " * 10, [])
    assert isinstance(asked, Asked)
    assert asked.tool == "docs"
    assert asked.arguments == {"query": ("How does a lease end? " * 10)[:40]}


def test_a_tool_named_in_the_prompt_comes_before_the_first() -> None:
    assert model(SQL, KILOMETRES).respond("use miles-to-km for 26.2 miles", []) == Asked("miles-to-km", {"miles": 26.2})


def test_an_enumerated_argument_is_taken_from_the_prompt() -> None:
    assert model(DESK).respond("weather at LGA?", []) == Asked("weather-desk", {"airport": "LGA"})


def test_the_answer_lists_what_the_tools_gave() -> None:
    rows = {"columns": ["carrier", "n"], "rows": [["UA", 58665], ["B6", 54635]]}
    answered = model(SQL).respond("SELECT carrier, n FROM flights", [Returned("sql", rows)])
    assert isinstance(answered, Answered)
    assert "carrier | n" in answered.text
    assert "UA      | 58665" in answered.text


def test_a_rule_of_the_agent_makes_its_calls_in_order_and_fills_its_texts() -> None:
    script = [
        {
            "when": r"from (?P<airport>[A-Z]{3})",
            "call": [
                {"tool": "sql", "args": {"sql": "SELECT * FROM flights WHERE origin = '{airport}'"}},
                {"tool": "docs", "args": {"query": "{prompt}", "limit": 3, "nested": [{"was": "{result}"}]}},
            ],
            "answer": "From {airport}: {result} {unknown}",
        }
    ]
    scripted = model(SQL, DOCS, script=script)
    prompt = "delays from JFK?"
    first = scripted.respond(prompt, [])
    assert first == Asked("sql", {"sql": "SELECT * FROM flights WHERE origin = 'JFK'"})
    second = scripted.respond(prompt, [Returned("sql", "12")])
    assert second == Asked("docs", {"query": prompt, "limit": 3, "nested": [{"was": "12"}]})
    last = scripted.respond(prompt, [Returned("sql", "12"), Returned("docs", "a page")])
    assert last == Answered(f"From JFK: a page {{unknown}}\n\n{NOTICE}")


def test_a_prompt_can_be_a_script_of_its_own() -> None:
    prompt = orjson.dumps(
        {"script": [{"call": {"tool": "sql", "args": {"sql": "SELECT 1"}}}, {"answer": "so: {result}"}]}
    ).decode()
    scripted = model(SQL, script=[{"when": "", "call": [], "answer": "the agent's own rule"}])
    assert scripted.respond(prompt, []) == Asked("sql", {"sql": "SELECT 1"})
    assert scripted.respond(prompt, [Returned("sql", "1")]) == Answered(f"so: 1\n\n{NOTICE}")


@pytest.mark.parametrize(
    "prompt", ['{"script": 3}', '{"script": [{"call": {}}]}', '{"script": ["x"]}', "{not json", '{"a": 1}']
)
def test_a_broken_script_is_an_ordinary_prompt(prompt: str) -> None:
    assert isinstance(model(DOCS).respond(prompt, []), Asked)


def test_a_template_reaches_no_attributes() -> None:
    script = [{"when": "", "call": [], "answer": "{prompt.__class__} {0.__class__} {prompt}"}]
    answered = model(script=script).respond("hello", [])
    assert answered == Answered(f"{{prompt.__class__}} {{0.__class__}} hello\n\n{NOTICE}")


def test_without_tools_it_says_that_it_knows_nothing() -> None:
    answered = model().respond("who won?", [])
    assert isinstance(answered, Answered)
    assert NOTICE in answered.text


@given(st.text(max_size=300))
def test_whatever_the_prompt_it_answers_the_same_twice_and_ends(prompt: str) -> None:
    scripted = model(SQL, DOCS, KILOMETRES, DESK)
    returned: list[Returned] = []
    for _ in range(5):
        said = scripted.respond(prompt, returned)
        assert said == scripted.respond(prompt, returned)
        if isinstance(said, Answered):
            assert NOTICE in said.text
            return
        returned.append(Returned(said.tool, "x"))
    raise AssertionError("it never answered")
