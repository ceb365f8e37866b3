"""The parts of one SELECT, told apart by reserved words alone: what else looks like a keyword may be a name."""

from __future__ import annotations

from collections.abc import Container
from typing import Final, NamedTuple

from remit_agent_runtime.toolhost.sql_tokens import (
    OTHER,
    QUOTED,
    STRING,
    Group,
    Item,
    Items,
    Token,
    at,
    is_sign,
    is_word,
    split,
)

_WORDS: Final = (
    "all and as between case collate distinct else escape except exists from group having in intersect is isnull join"
    " limit not notnull null on or order select then union using values when where"
)
RESERVED: Final = frozenset(_WORDS.split())
"""Of the words that SQLite never takes for a name unless quoted, those that a SELECT may hold."""
COMPOUND: Final = ("union", "intersect", "except")
JOINS: Final = ("join", "natural", "left", "right", "full", "inner", "cross", "outer")
_CLAUSES: Final = ("where", "group", "having", "order", "limit")
_NO_ALIAS: Final = (*RESERVED, *JOINS, "end", "indexed")
_WANTS_MORE: Final = (*(RESERVED - {"null", "isnull", "notnull"}), "glob", "like", "match", "over", "regexp")


class Clauses(NamedTuple):
    """`rest` is all that follows the FROM."""

    results: Items
    source: Items
    rest: Items


def clauses(items: Items) -> Clauses:
    """The parts of `SELECT ...`."""
    begins = next((index for index in range(len(items)) if _ends_results(items, index)), len(items))
    if not is_word(at(items, begins), "from"):
        return Clauses(items[1:begins], (), items[begins:])
    after = range(begins + 1, len(items))
    ends = next((i for i in after if is_word(items[i], *_CLAUSES) or _defines_window(items, i)), len(items))
    return Clauses(items[1:begins], items[begins + 1 : ends], items[ends:])


def windows(items: Items) -> dict[str, Items]:
    """The named windows among the clauses after FROM."""
    found = {}
    for index, item in enumerate(items):
        body = at(items, index + 2)
        if isinstance(item, Token) and is_word(at(items, index + 1), "as") and isinstance(body, Group):
            found[item.text] = body.items
    return found


def without_terms(items: Items, aliases: Container[str]) -> Items:
    """The clauses without the terms of ORDER BY that are a result column's name: it means that, whatever the tables'
    columns are called."""
    begins = next((index for index, item in enumerate(items) if is_word(item, "order")), len(items))
    ends = next((i for i in range(begins, len(items)) if is_word(items[i], "limit")), len(items))
    kept = list(items[:begins])
    for part in split(items[begins:ends]):
        terms = [item for item in part if not is_word(item, "order", "by", "asc", "desc", "nulls", "first", "last")]
        alone = len(terms) == 1 and isinstance(terms[0], Token) and terms[0].is_name and terms[0].text in aliases
        kept += () if alone else (*part, Token(OTHER, ","))
    return (*kept, *items[ends:])


def alias(items: Items) -> tuple[Items, str]:
    """A result column's expression, and its name: as given, or a column's own; "" when only SQLite could name it."""
    last, before = at(items, len(items) - 1), at(items, len(items) - 2)
    if isinstance(last, Token) and last.kind != OTHER and before is not None:
        if is_word(before, "as"):
            return items[:-2], last.text
        ends_value = isinstance(before, Group) or before.kind in (STRING, QUOTED) or before.text[-1:].isalnum()
        if ends_value and may_be_alias(last) and not is_word(before, *_WANTS_MORE):
            return items[:-1], last.text
    path = path_at(items, 0)
    return items, path[-1] if path and 2 * len(path) - 1 == len(items) else ""


def may_be_alias(item: Item | None) -> bool:
    """Whether a name without AS may be a new one for what stands before it."""
    return isinstance(item, Token) and item.kind != OTHER and not is_word(item, *_NO_ALIAS)


def path_at(items: Items, index: int) -> list[str]:
    """The name there with its qualifiers, `table.column`; it is `2 * len - 1` items long."""
    first = at(items, index)
    if not isinstance(first, Token) or first.kind == OTHER:
        return []
    path = [first.text]
    while is_sign(at(items, index + 1), ".") and isinstance(part := at(items, index + 2), Token) and part.kind != OTHER:
        path.append(part.text)
        index += 2
    return path


def plain_columns(items: Items) -> list[list[str]] | None:
    """The columns that a count or a window names, when it names columns and does nothing else with them."""
    found = []
    index = 1 if is_word(at(items, 0), "distinct") else 0
    while index < len(items):
        if is_word(items[index], "partition", "order") and is_word(at(items, index + 1), "by"):
            index += 2
        elif is_sign(items[index], ","):
            index += 1
        elif path := path_at(items, index):
            found.append(path)
            index += 2 * len(path) - 1
            while is_word(at(items, index), "asc", "desc") or (
                is_word(at(items, index), "nulls") and is_word(at(items, index + 1), "first", "last")
            ):
                index += 2 if is_word(at(items, index), "nulls") else 1
        else:
            return None
    return found


def _ends_results(items: Items, index: int) -> bool:
    if is_word(items[index], "from"):  # but not in `a IS NOT DISTINCT FROM b`
        return not is_word(at(items, index - 1), "distinct")
    return is_word(items[index], *_CLAUSES)


def _defines_window(items: Items, index: int) -> bool:
    """`WINDOW name AS (...)`: the word alone may be a name."""
    return is_word(items[index], "window") and is_word(at(items, index + 2), "as")
