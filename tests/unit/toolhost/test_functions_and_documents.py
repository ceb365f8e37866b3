"""Typed functions check their arguments; document search finds passages of one tenant only."""

from __future__ import annotations

import os
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.toolhost.rig import Rig

from remit_agent_runtime.toolhost import functions
from remit_agent_runtime.toolhost.documents import (
    MAX_PASSAGE_CHARACTERS,
    DocumentIndexes,
    Passage,
    passages_of,
    query_of,
)
from remit_agent_runtime.toolhost.refusals import ToolRefused

GOOD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "convert_length": ({"value": 2, "from_unit": "mile", "to_unit": "metre"}, {"value": 3218.688, "unit": "metre"}),
    "convert_temperature": (
        {"value": 212, "from_unit": "fahrenheit", "to_unit": "celsius"},
        {"value": 100.0, "unit": "celsius"},
    ),
    "days_between": ({"start": "2013-01-31", "end": "2013-03-01"}, {"days": 29}),
    "great_circle": (
        {"from_lat": 0, "from_lon": 0, "to_lat": 0, "to_lon": 180},
        {"kilometres": pytest.approx(20_015.115)},
    ),
    "miles_to_km": ({"miles": 1}, {"kilometres": 1.609344}),
}


def test_there_is_a_case_for_every_function() -> None:
    assert set(GOOD) == set(functions.FUNCTIONS)


@pytest.mark.parametrize("entry", sorted(GOOD))
def test_a_function_computes_and_its_schema_accepts_its_arguments(entry: str) -> None:
    arguments, expected = GOOD[entry]
    about, schema = functions.schema_of(entry)
    jsonschema.validate(arguments, schema)
    assert about
    assert functions.call(entry, arguments) == expected
    for name in arguments:
        with pytest.raises(functions.BadArguments):
            functions.call(entry, {key: value for key, value in arguments.items() if key != name})
    with pytest.raises(functions.BadArguments):
        functions.call(entry, arguments | {"more": 1})


@pytest.mark.parametrize(
    ("entry", "changes"),
    [
        ("days_between", {"start": "31.1.2013"}),
        ("days_between", {"start": 20130131}),
        ("miles_to_km", {"miles": "1"}),
        ("miles_to_km", {"miles": True}),
        ("miles_to_km", {"miles": 1e300}),
        ("miles_to_km", {"miles": None}),
        ("convert_length", {"to_unit": "parsec"}),
        ("great_circle", {"to_lat": 91}),
    ],
)
def test_arguments_that_do_not_fit_are_refused(entry: str, changes: dict[str, Any]) -> None:
    with pytest.raises(functions.BadArguments):
        functions.call(entry, GOOD[entry][0] | changes)


def search(rig: Rig, indexes: DocumentIndexes, query: str, tenant: str = "acme") -> list[Passage]:
    terms = query_of({"query": query}, passages=5)
    return indexes.search((tenant, "docs"), rig.home / "documents" / tenant, terms)


@pytest.fixture
def indexes() -> Any:
    made = DocumentIndexes()
    yield made
    made.close()


def test_a_passage_is_found_with_its_file_and_headings(rig: Rig, indexes: DocumentIndexes) -> None:
    (found,) = search(rig, indexes, "How many seconds do permits hold?")
    assert (found.file, found.heading) == ("guide/permits.md", "Guide > Permits")
    assert "holds for seconds" in found.text
    assert "# no heading" in found.text


def test_one_tenants_documents_are_not_in_anothers_index(rig: Rig, indexes: DocumentIndexes) -> None:
    assert "CANARY-GLOBEX" in search(rig, indexes, "permit", "globex")[0].text
    assert all("CANARY" not in found.text for found in search(rig, indexes, "permit globex canary"))


def test_a_changed_a_new_and_a_removed_file_are_noticed(rig: Rig, indexes: DocumentIndexes) -> None:
    assert search(rig, indexes, "zeppelin") == []
    path = rig.home / "documents/acme/new.md"
    path.write_text("A zeppelin.")
    assert [found.file for found in search(rig, indexes, "zeppelin")] == ["new.md"]
    path.write_text("An airship, once called otherwise.")
    assert search(rig, indexes, "zeppelin") == []
    path.unlink()
    assert search(rig, indexes, "airship") == []


def test_a_link_out_of_the_folder_is_not_read(rig: Rig, indexes: DocumentIndexes) -> None:
    os.symlink(rig.home / "documents/globex/own.md", rig.home / "documents/acme/link.md")
    os.symlink(rig.home / "documents/globex", rig.home / "documents/acme/folder")
    assert all("CANARY" not in found.text for found in search(rig, indexes, "canary globex permit"))


@given(st.text(min_size=1, max_size=60))
def test_no_query_is_fts_syntax(query: str) -> None:
    try:
        terms = query_of({"query": query}, passages=5).terms
    except ToolRefused:  # no word in it
        assert not any(char.isalnum() for char in query)
    else:
        assert terms
        assert not any('"' in term for term in terms)


@pytest.mark.parametrize(
    "query", ['"', "a AND", "NEAR(", "file:x", "col : *", "-x", "permit*", "^permit", "a OR OR b", "x' --"]
)
def test_fts_operators_are_only_words(rig: Rig, indexes: DocumentIndexes, query: str) -> None:
    if any(char.isalnum() for char in query):
        search(rig, indexes, query)
    else:
        with pytest.raises(ToolRefused, match="no word"):
            search(rig, indexes, query)


@pytest.mark.parametrize("arguments", [{}, {"query": 1}, {"query": "a", "limit": 0}, {"query": "a", "limit": True},
    {"query": "a", "limit": 21}, {"query": "a", "path": "/etc"}, {"query": "a" * 1_001}, {"query": "?!"}])  # fmt: skip
def test_search_arguments_of_another_shape_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ToolRefused) as refused:
        query_of(arguments, passages=5)
    assert refused.value.refusal_code == "tool.bad_arguments"


def test_a_long_text_is_cut_into_passages() -> None:
    cut = list(passages_of("a.md", "# A\n" + "x" * (2 * MAX_PASSAGE_CHARACTERS + 1)))
    assert [len(each.text) for each in cut] == [MAX_PASSAGE_CHARACTERS, MAX_PASSAGE_CHARACTERS, 1]
    assert {each.heading for each in cut} == {"A"}
