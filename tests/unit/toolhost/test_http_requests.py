"""What of a call becomes the URL, and what can never become a host."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_agent_runtime.toolhost.definitions import HttpTool, Parameter
from remit_agent_runtime.toolhost.http_tool import check_arguments, url_of
from remit_agent_runtime.toolhost.refusals import ToolRefused

TOOL = HttpTool(
    id="desk",
    url="https://desk.example:8443/v1/{airport}/now",
    connection="desk",
    parameters={
        "airport": Parameter(type="string", max_length=40),
        "days": Parameter(type="integer", required=False),
        "unit": Parameter(type="string", enum=("c", "f"), required=False),
        "raw": Parameter(type="boolean", required=False),
    },
)


def test_arguments_go_into_the_path_and_the_query() -> None:
    url = url_of(TOOL, {"airport": "J F/K", "days": 2, "unit": "c", "raw": True})
    assert url == "https://desk.example:8443/v1/J%20F%2FK/now?days=2&unit=c&raw=true"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_no_argument_leaves_the_host_or_the_path(airport: str) -> None:
    try:
        url = url_of(TOOL, {"airport": airport})
    except ToolRefused:
        assert airport in {".", ".."} or not airport.isprintable()
    else:
        assert url.startswith("https://desk.example:8443/v1/")
        assert url.endswith("/now")
        assert url.count("/") == 5
        assert url.isascii()


@pytest.mark.parametrize("airport", ["", ".", "..", "a\nb", "a\r\nX: y", "\0", "\x7f"])
def test_an_argument_that_would_change_the_path_is_refused(airport: str) -> None:
    with pytest.raises(ToolRefused) as refused:
        url_of(TOOL, {"airport": airport})
    assert refused.value.refusal_code == "tool.bad_arguments"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"airport": 1},
        {"airport": None},
        {"airport": "x" * 41},
        {"airport": "JFK", "days": "2"},
        {"airport": "JFK", "days": True},
        {"airport": "JFK", "days": 2.5},
        {"airport": "JFK", "unit": "k"},
        {"airport": "JFK", "raw": 1},
        {"airport": "JFK", "host": "evil.example"},
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ToolRefused) as refused:
        check_arguments(TOOL, arguments)
    assert refused.value.refusal_code == "tool.bad_arguments"
