"""Each guard of the table is there, and a test fails when it is taken away."""

from __future__ import annotations

import ast
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from guards.copies import CHECKOUT, Copy, Outcome, replaced_once
from guards.mutations import INVARIANTS, MUTATIONS, Mutation
from guards.page import BEGIN, END, PAGE, table

REPORT = os.environ.get("REMIT_GUARDS_REPORT", "")
"""A file to write one JSON line a mutation to."""


def name_of(mutation: Mutation) -> str:
    return mutation.name.replace(" ", "-")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=name_of)
def test_every_guard_of_the_table_stands_exactly_once_in_its_file(mutation: Mutation) -> None:
    text = (CHECKOUT / mutation.file).read_text()
    mutated = replaced_once(text, mutation.old, mutation.new, where=mutation.file)
    if mutation.file.endswith(".py"):
        ast.parse(mutated)  # red for a syntax error would prove nothing


def test_every_invariant_has_guards_and_no_guard_is_named_twice() -> None:
    assert {mutation.invariant for mutation in MUTATIONS} == set(INVARIANTS)
    assert max(Counter(mutation.name for mutation in MUTATIONS).values()) == 1


def test_every_test_of_the_table_is_there() -> None:
    for mutation in MUTATIONS:
        for node in mutation.red:
            file, _, test = node.partition("::")
            defined = {
                found.name
                for found in ast.walk(ast.parse((CHECKOUT / file).read_text()))
                if isinstance(found, (ast.FunctionDef, ast.AsyncFunctionDef))
            }
            assert test in defined, node


def test_the_page_on_testing_shows_every_guard_its_tests_and_that_its_removal_was_caught() -> None:
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert shown == table({mutation.name: True for mutation in MUTATIONS}), "see tests/guards/page.py"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("guards"))


@pytest.fixture(scope="module")
def before(copy: Copy) -> Outcome:
    """What all tests of the table say in the copy as it stands."""
    outcome = copy.run(sorted({node for mutation in MUTATIONS for node in mutation.red}))
    assert outcome.code in (0, 1), outcome.output[-8000:]
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("-I",)], ids=["plain", "isolated"])
def test_every_process_of_the_copy_imports_the_copy(copy: Copy, flags: tuple[str, ...]) -> None:
    for module in ("remit_contracts", "remit_policy.engine_child", "remit_agent_runtime.toolhost", "remit.cli"):
        assert copy.root in copy.imported_from(module, *flags).parents


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=name_of)
def test_a_test_fails_when_the_guard_is_removed(copy: Copy, before: Outcome, mutation: Mutation) -> None:
    assert not before.failed & set(mutation.red), before.output[-8000:]  # red for another reason proves nothing
    with copy.mutated(mutation.file, mutation.old, mutation.new):
        outcome = copy.run(mutation.red)
    missed = sorted(set(mutation.red) - outcome.failed)
    if REPORT:
        with Path(REPORT).open("a") as report:
            report.write(json.dumps({"name": mutation.name, "code": outcome.code, "missed": missed}) + "\n")
    assert outcome.code == 1, outcome.output[-4000:]  # tests failed; 2 and more: pytest could not run them
    assert missed == [], f"{mutation.name}: removed, and still green"
