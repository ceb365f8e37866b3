"""An obligation that is not understood completely refuses the call."""

from __future__ import annotations

from typing import Any

import pytest

from remit_agent_runtime.toolhost.definitions import DocumentsTool, FunctionTool, HttpTool, SqlTool, enforced_by
from remit_agent_runtime.toolhost.obligations import Bounds, RowFilter, read
from remit_agent_runtime.toolhost.refusals import ToolRefused
from remit_contracts.fast_decisions import Obligation

ALL = ("mask_fields", "max_rows", "row_filter")
MASK = Obligation("mask_fields", {"fields": ["TailNum", "planes.serial"]})
ROWS = Obligation("max_rows", {"limit": 5})
FILTER = Obligation("row_filter", {"column": "carrier", "op": "in", "values": ["UA", 1]})


def test_all_obligations_hold_together_and_the_narrowest_limit_wins() -> None:
    twice = (MASK, ROWS, FILTER, Obligation("max_rows", {"limit": 3}), Obligation("mask_fields", {"fields": ["x"]}))
    assert read(twice, enforces=ALL) == Bounds(
        frozenset({"tailnum", "planes.serial", "x"}), 3, (RowFilter("carrier", ("UA", 1)),)
    )


def test_an_obligation_that_the_tool_cannot_honour_refuses_the_call() -> None:
    for tool, beyond in (
        (FunctionTool(id="f", entry="days_between"), (MASK, ROWS, FILTER)),
        (HttpTool(id="h", url="https://d.example/", connection="c"), (MASK, ROWS, FILTER)),
        (DocumentsTool(id="d", folder="documents/acme"), (MASK, FILTER)),
        (SqlTool(id="s", source="sources/acme/a.sqlite"), ()),
    ):
        for obligation in (MASK, ROWS, FILTER):
            if obligation in beyond:
                with pytest.raises(ToolRefused) as refused:
                    read((obligation,), enforces=enforced_by(tool))
                assert refused.value.refusal_code == "tool.unenforceable_obligation"
            else:
                read((obligation,), enforces=enforced_by(tool))


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        ("watermark", {}),
        ("", {}),
        ("MASK_FIELDS", {"fields": ["a"]}),
        ("mask_fields", {}),
        ("mask_fields", {"fields": "tailnum"}),
        ("mask_fields", {"fields": [1]}),
        ("mask_fields", {"fields": [""]}),
        ("mask_fields", {"fields": ["a"], "except": ["b"]}),
        ("max_rows", {"limit": "5"}),
        ("max_rows", {"limit": -1}),
        ("max_rows", {"limit": True}),
        ("max_rows", {"limit": 5.0}),
        ("max_rows", {"limit": None}),
        ("row_filter", {"column": "c", "op": "not_in", "values": ["a"]}),
        ("row_filter", {"column": "c", "op": "eq", "values": ["a", "b"]}),
        ("row_filter", {"column": "c", "values": ["a"]}),
        ("row_filter", {"column": "c", "op": "in", "values": "a"}),
        ("row_filter", {"column": "c", "op": "in", "values": [None]}),
        ("row_filter", {"column": "c", "op": "in", "values": [["a"]]}),
        ("row_filter", {"column": "c", "op": "in", "values": ["a\0"]}),
        ("row_filter", {"column": "c", "op": "in", "values": [float("inf")]}),
        ("row_filter", {"column": "c", "op": "in", "values": [2**63]}),
        ("row_filter", {"column": "", "op": "in", "values": ["a"]}),
        ("row_filter", {"column": "c", "op": "in", "values": ["a"], "or": []}),
    ],
)
def test_an_obligation_of_an_unknown_type_or_shape_refuses_the_call(kind: str, properties: dict[str, Any]) -> None:
    with pytest.raises(ToolRefused) as refused:
        read((MASK, Obligation(kind, properties)), enforces=(*ALL, kind))
    assert refused.value.refusal_code == "tool.unknown_obligation"
