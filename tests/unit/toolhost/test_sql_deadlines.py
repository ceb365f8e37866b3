"""No function call of a statement outlasts its deadline, which SQLite looks at between calls only."""

from __future__ import annotations

import time

import pytest
from unit.toolhost.rig import Rig
from unit.toolhost.test_sql_withholding import run

from remit_agent_runtime.toolhost.refusals import ToolRefused
from remit_agent_runtime.toolhost.sql_calls import MAX_CALLS, MAX_SLOW_CALLS, SLOW
from remit_agent_runtime.toolhost.sql_shadow import FUNCTIONS

STATEMENT_SECONDS = 0.3
MARGIN_SECONDS = 1.5
"""Several times what one pass of these statements takes, and half of what they took without the bounds."""

LONG = (
    "WITH long(a) AS MATERIALIZED (SELECT printf('%.60000c', 'a')),"
    " half(b) AS MATERIALIZED (SELECT printf('%.30000c', 'a') || 'b'),"
    f" t(v) AS (VALUES {','.join(f'({i})' for i in range(11))})"
)
COSTLY = [
    "instr(a, b)",
    "replace(a, b, 'x')",
    "trim(a, 'bcdefghijklmnopqrstuvwxyza')",
    "a LIKE '%" + "a" * 90 + "b'",
    "a GLOB '*" + "[a]" * 32 + "b'",
    "printf('%s', a)",
    "upper(a)",
]


@pytest.mark.parametrize("call", COSTLY)
def test_twenty_columns_of_costly_calls_on_many_rows_end_at_the_deadline(rig: Rig, call: str) -> None:
    columns = ", ".join([f"sum(length({call}))"] * 20)
    began = time.monotonic()
    with pytest.raises(ToolRefused) as refused:
        run(rig, f"{LONG} SELECT {columns} FROM long, half, t, t, t, t, t", statement_seconds=STATEMENT_SECONDS)
    assert refused.value.refusal_code == "tool.timeout"
    assert time.monotonic() - began < STATEMENT_SECONDS + MARGIN_SECONDS


@pytest.mark.parametrize(
    ("sql", "way_out"),
    [
        ("SELECT length(printf('%.*c', 2000000000, 'x'))", "write it into the format"),
        ("SELECT length(printf('%*d', 2000000000, 1))", "write it into the format"),
        ("SELECT length(printf('%2000000000d', 1))", "ask for less"),
        ("SELECT length(format('%.2000000000f', 1.0))", "ask for less"),
        ("SELECT length(\"printf\"('%0l.90000000c', 'x'))", "ask for less"),
        ("SELECT printf(" + "'%9999d' || " * 6 + "'%9999d', 1)", "ask for less"),
        ("SELECT length(trim(printf('%.60000c', 'a'), printf('%.60000c', 'b') || 'a'))", "give fewer"),
        ("SELECT ltrim('a', printf('%.101c', 'b'))", "give fewer"),
        ("SELECT Rtrim('a', x'" + "61" * 101 + "')", "give fewer"),
        ("SELECT json_patch('{}', '{}')", "plain functions"),
        # Its recursion along the path ends the process where the path is long enough.
        ("SELECT json_set('{}', '$' || replace(printf('%60000d', 1), ' ', '.a'), 1)", "plain functions"),
    ],
)
def test_a_call_that_no_bound_on_values_would_end_is_refused_with_the_way_out(rig: Rig, sql: str, way_out: str) -> None:
    began = time.monotonic()
    with pytest.raises(ToolRefused, match=way_out) as refused:
        run(rig, sql, statement_seconds=STATEMENT_SECONDS)
    assert refused.value.refusal_code == "tool.forbidden_statement"
    assert time.monotonic() - began < STATEMENT_SECONDS + MARGIN_SECONDS


def test_the_longest_value_is_the_bound_and_the_way_out_is_told(rig: Rig) -> None:
    whole = "printf('%.65535c', 'a')"
    assert run(rig, f"SELECT length({whole})").content["rows"] == [[65_535]]
    with pytest.raises(ToolRefused, match="over the 65536 bytes .* leave that column out") as refused:
        run(rig, f"SELECT {whole} || 'bc'")
    assert refused.value.refusal_code == "tool.result_too_large"


def test_calls_for_one_row_are_bounded_since_the_deadline_is_not_looked_at_meanwhile(rig: Rig) -> None:
    slow = " AND ".join(["dest LIKE '%A%'"] * MAX_SLOW_CALLS)
    assert len(run(rig, f"SELECT flight FROM flights WHERE {slow}").content["rows"]) == 3
    with pytest.raises(ToolRefused, match="51 of them slow ones .* ask in several statements") as refused:
        run(rig, f"SELECT flight FROM flights WHERE {slow} AND dest LIKE '%L%'")
    assert refused.value.refusal_code == "tool.forbidden_statement"
    # A few words call very often, once SQLite has put each expression in the place of its name.
    doubled = "WITH c0(x) AS (SELECT upper(dest) FROM flights)"
    doubled += "".join(f", c{i}(x) AS (SELECT lower(x) || upper(x) FROM c{i - 1})" for i in range(1, 10))
    with pytest.raises(ToolRefused, match=f"may call {MAX_CALLS}"):
        run(rig, f"{doubled} SELECT x FROM c9")


def test_what_the_guards_let_through_is_what_sqlite_makes_of_it(rig: Rig) -> None:
    asked = {
        "trim('xxaxx', 'x')": "a",
        "ltrim(5.50, '5')": ".5",
        "rtrim('aä', 'ä')": "a",
        "trim(NULL, 'x')": None,
        "trim('a', NULL)": None,
        "trim('  a ')": "a",
        "printf('%05.1f|%-4s|%,d|%%', 2.25, 'ab', 12345)": "002.3|ab  |12,345|%",
        "printf('100%%9999999 off')": "100%9999999 off",
        "printf(NULL)": None,
        "format('%s', x'6162')": "ab",
    }
    assert run(rig, "SELECT " + ", ".join(asked)).content["rows"] == [list(asked.values())]


def test_every_slow_function_is_one_that_may_be_called(rig: Rig) -> None:
    assert SLOW <= FUNCTIONS
