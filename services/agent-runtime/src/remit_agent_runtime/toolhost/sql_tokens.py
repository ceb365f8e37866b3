"""A statement as SQLite's tokenizer cuts it, with its parentheses nested; nothing is understood yet."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

WORD: Final = "word"
QUOTED: Final = "quoted"
STRING: Final = "string"
OTHER: Final = "other"

# A byte order mark is white space to SQLite where a token may begin, and a letter inside of a name.
_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\n\v\f\r\ufeff]+|--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<string>[xX]?'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
    |(?P<number>0[xX][0-9a-fA-F_]+|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9][0-9_]*)?)
    |(?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
    |(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_FOLD: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


class Token(NamedTuple):
    """`text` is folded and unquoted for words and names; `kind` is one of the constants above."""

    kind: str
    text: str

    @property
    def is_name(self) -> bool:
        """Whether it can name a table, a column or a function (a bare word may be a keyword all the same)."""
        return self.kind in (WORD, QUOTED)


class Group(NamedTuple):
    """What stands between two parentheses."""

    items: tuple[Item, ...]


Item = Token | Group
Items = tuple[Item, ...]


class Unbalanced(ValueError):
    """Parentheses that do not match: no statement that SQLite would run."""


def fold(name: str) -> str:
    """As SQLite compares names: the cases of ASCII letters alone do not matter."""
    return name.translate(_FOLD)


def read(sql: str) -> Items:
    """The statement's items, without its last semicolon; raises Unbalanced."""
    open_groups: list[list[Item]] = [[]]
    for match in _TOKEN.finditer(sql):
        kind, text = match.lastgroup, match.group()
        if kind == "space" or text == ";":
            continue
        if text == "(":
            open_groups.append([])
        elif text == ")":
            closed = Group(tuple(open_groups.pop()))
            if not open_groups:
                raise Unbalanced
            open_groups[-1].append(closed)
        elif kind == "word":
            open_groups[-1].append(Token(WORD, fold(text)))
        elif kind == "quoted":
            inside = text[1:-1] if text[0] == "[" else text[1:-1].replace(text[0] * 2, text[0])
            open_groups[-1].append(Token(QUOTED, fold(inside)))
        elif kind == "string":
            open_groups[-1].append(Token(STRING, fold(text[text.index("'") + 1 : -1].replace("''", "'"))))
        else:
            open_groups[-1].append(Token(OTHER, text))
    if len(open_groups) != 1:
        raise Unbalanced
    return tuple(open_groups[0])


def is_word(item: Item | None, *words: str) -> bool:
    """Whether the item is one of these bare words."""
    return isinstance(item, Token) and item.kind == WORD and item.text in words


def is_sign(item: Item | None, sign: str) -> bool:
    """Whether the item is that sign: a dot, a comma, a star."""
    return isinstance(item, Token) and item.kind == OTHER and item.text == sign


def at(items: Items, index: int) -> Item | None:
    """The item there, or None past the end."""
    return items[index] if 0 <= index < len(items) else None


def split(items: Items, sign: str = ",") -> list[Items]:
    """The parts between the signs of this level."""
    parts: list[list[Item]] = [[]]
    for item in items:
        if is_sign(item, sign):
            parts.append([])
        else:
            parts[-1].append(item)
    return [tuple(part) for part in parts]


def is_query(items: Items) -> bool:
    """Whether the items of a group are a query: WITH is no reserved word, so what follows it decides."""
    first, second, third = at(items, 0), at(items, 1), at(items, 2)
    if is_word(first, "with"):
        named = isinstance(second, Token) and second.kind != OTHER
        return named and (isinstance(third, Group) or is_word(third, "as") or is_word(second, "recursive"))
    return is_word(first, "select", "values")
