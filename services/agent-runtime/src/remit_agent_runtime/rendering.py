"""A tool's result as text that people can read: rows as an aligned table, texts as they are, the rest as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

MAX_ROWS: Final = 50
MAX_CELL_CHARACTERS: Final = 60
MAX_CHARACTERS: Final = 8_000


def readable(content: Any) -> str:
    """`content` as text of at most MAX_CHARACTERS; what is left out is said."""
    text = _render(content)
    return (
        text
        if len(text) <= MAX_CHARACTERS
        else f"{text[:MAX_CHARACTERS]}\n... ({len(text) - MAX_CHARACTERS} characters more)"
    )


def _render(content: Any) -> str:
    if content is None:
        return "nothing"
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        columns, rows = content.get("columns"), content.get("rows")
        if isinstance(columns, list) and isinstance(rows, list):
            return table([str(column) for column in columns], rows)
        for name in ("results", "documents", "passages", "hits", "rows"):
            if isinstance(content.get(name), list):
                return _render(content[name])
        return "\n".join(f"{name}: {_cell(value)}" for name, value in content.items()) or "nothing"
    if isinstance(content, list):
        if content and all(isinstance(item, dict) for item in content):
            columns = list(dict.fromkeys(name for item in content for name in item))
            if len(columns) > 1 and not any(
                len(str(value)) > MAX_CELL_CHARACTERS for item in content for value in item.values()
            ):
                return table(columns, [[item.get(column) for column in columns] for item in content])
            return "\n\n".join(_render(item) for item in content)
        return "\n".join(f"- {_cell(item)}" for item in content) or "nothing"
    return _cell(content)


def table(columns: Sequence[str], rows: Sequence[Any]) -> str:
    """Columns and rows (sequences, or mappings by column), aligned."""
    cells = [[_cell(value) for value in _values(columns, row)] for row in rows[:MAX_ROWS]]
    if not cells:
        return f"{' | '.join(columns)}\n(no rows)"
    widths = [max(len(column), *(len(line[at]) for line in cells)) for at, column in enumerate(columns)]

    def line(values: Sequence[str]) -> str:
        return " | ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)).rstrip()

    lines = [line(columns), "-+-".join("-" * width for width in widths), *map(line, cells)]
    if len(rows) > MAX_ROWS:
        lines.append(f"({len(rows) - MAX_ROWS} rows more)")
    return "\n".join(lines)


def _values(columns: Sequence[str], row: Any) -> list[Any]:
    if isinstance(row, dict):
        return [row.get(column) for column in columns]
    values = list(row) if isinstance(row, (list, tuple)) else [row]
    return [*values, *[""] * len(columns)][: len(columns)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return " ".join(value.split()) if "\n" in value and len(value) <= MAX_CELL_CHARACTERS else value
    return orjson.dumps(value, default=str).decode()
