"""What names mean inside a statement, for `sql_provenance`: relations with their columns, in scopes within scopes.

A *pick* is one value of a column of a table that a row of an answer may tell of: the column, and the way by which its
row was chosen. The same row by the same way is one pick however often it is named; each further way (a table named
once more, an aggregate, a window function, a scalar subquery) is another. Where a name is doubtful, it means all that
it may mean: picks are counted too high and never too low.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from remit_agent_runtime.toolhost.sql_tokens import QUOTED, Items


class Pick(NamedTuple):
    """`table` is "" where it is not known; `way` are numbers: a table's place in the statement, the calls around it."""

    table: str
    column: str
    way: tuple[int, ...]


Picks = frozenset[Pick]
NONE: Final[Picks] = frozenset()


class Relation(NamedTuple):
    """What stands in a FROM, or the answer itself. A column that only SQLite could name is called "".

    `condition` are the picks that decide which rows there are; each column holds them too. `base` says that it is a
    table itself, `merged` that SQLite may show fewer columns than these, so that their order says nothing.
    """

    columns: tuple[tuple[str, Picks], ...]
    condition: Picks = NONE
    base: bool = False
    merged: bool = False

    @property
    def picks(self) -> Picks:
        """All that one row may tell of."""
        return self.condition.union(*(picks for _, picks in self.columns))

    def on_condition(self, picks: Picks) -> Relation:
        """The same, when these decide which rows there are: what is shown tells of them too."""
        columns = tuple((name, of | picks) for name, of in self.columns)
        return Relation(columns, self.condition | picks, merged=self.merged)

    def renamed(self, names: tuple[str, ...]) -> Relation:
        """The same under other names, in order."""
        if self.merged or len(names) != len(self.columns):
            return Relation(tuple((name, self.picks) for name in names), self.condition)
        return Relation(tuple((name, of) for name, (_, of) in zip(names, self.columns, strict=True)), self.condition)


@dataclass
class Scope:
    """The FROM of one SELECT with the names that its relations go by, and the SELECT around it."""

    outer: Scope | None
    relations: list[tuple[frozenset[str], Relation]] = field(default_factory=list)
    aliases: dict[str, Picks] = field(default_factory=dict)
    windows: dict[str, Items] = field(default_factory=dict)
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    merges: bool = False

    @property
    def width(self) -> int:
        """How many columns can be seen from here."""
        own = sum(len(relation.columns) for _, relation in self.relations)
        return own + (self.outer.width if self.outer is not None else 0)

    def named(self, name: str, qualifier: str | None) -> list[tuple[Relation, Picks]]:
        """The columns of this FROM that a name may mean."""
        return [
            (relation, picks)
            for names, relation in self.relations
            if qualifier is None or qualifier in names
            for column, picks in relation.columns
            if column == name
        ]

    def nameless(self, kind: str) -> Picks:
        """What a name may mean that is no column's: SQLite's own name for an expression, which only quotes can hold
        unless the expression is a column in parentheses."""
        return NONE.union(
            *(
                picks
                for _, relation in self.relations
                if not relation.base
                for column, picks in relation.columns
                if not column or kind == QUOTED
            )
        )

    def resolve(self, name: str, qualifier: str | None, kind: str) -> Picks | None:
        """What a column's name means here or further out; None when it names nothing."""
        found, known = NONE, False
        scope: Scope | None = self
        while scope is not None:
            matches = scope.named(name, qualifier)
            if matches:
                found, known = found.union(*(picks for _, picks in matches)), True
            if any(relation.base for relation, _ in matches):
                return found  # a table's columns are known for certain, a subquery's names are not
            if qualifier is None and name in scope.aliases:  # some clauses see these, and others look further out
                found, known = found | scope.aliases[name], True
            if nameless := scope.nameless(kind):
                found, known = found | nameless, True
            scope = scope.outer
        return found if known else None

    def is_column_of_a_table(self, path: list[str]) -> bool:
        """Whether this FROM has that column, in tables only and not in what a subquery made of them."""
        matches = self.named(path[-1], path[-2] if len(path) > 1 else None)
        return bool(matches) and all(relation.base for relation, _ in matches)
