"""The table of docs/testing.md, from the table of mutations and the report of a whole run.

REMIT_GUARDS_REPORT=report.jsonl just test-all tests/guards
cd tests && uv run --group test python -m guards.page report.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from guards.copies import CHECKOUT
from guards.mutations import INVARIANTS, MUTATIONS, Mutation

PAGE = CHECKOUT / "docs" / "testing.md"
BEGIN, END = "<!-- guards: written by tests/guards/page.py -->\n", "<!-- end of guards -->\n"


def caught(report: Path) -> dict[str, bool]:
    """Name of a mutation -> whether each of its tests failed, by the last line about it."""
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    return {line["name"]: line["code"] == 1 and not line["missed"] for line in lines}


def table(outcome: Mapping[str, bool]) -> str:
    """A heading and a table an invariant."""
    parts = []
    for number, words in INVARIANTS.items():
        parts.append(
            f"\n### {number}. {words}\n\n| guard | where | attacked by | removal caught |\n|---|---|---|---|\n"
        )
        parts += [_row(each, outcome[each.name]) for each in MUTATIONS if each.invariant == number]
    return "".join(parts) + "\n"


def _row(mutation: Mutation, was_caught: bool) -> str:
    tests = "<br>".join(f"`{_short(node)}`" for node in mutation.red)
    where = mutation.file.replace("/src/", "/").replace("services/", "")
    return f"| {mutation.name} | `{where}` | {tests} | {'yes' if was_caught else '**no**'} |\n"


def _short(node: str) -> str:
    file, _, test = node.removeprefix("tests/").partition("::")
    return f"{file}::{test}"


def main() -> None:
    """Write the tables of a report into the page."""
    outcome = caught(Path(sys.argv[1]))
    text = PAGE.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}{table(outcome)}{END}{after}")


if __name__ == "__main__":
    main()
