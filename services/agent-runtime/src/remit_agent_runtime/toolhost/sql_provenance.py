"""How many rows of a table one row of an answer may tell of: what a cap on rows has to count.

`SELECT max(CASE WHEN id = 1 THEN name END), max(CASE WHEN id = 2 THEN name END) FROM t` puts two rows' names into one
row; so do scalar subqueries, window functions and a table joined with itself. The statement is read once, with its
common table expressions and the source's views written out, and for each row of the answer the picks (`sql_scope`) are
gathered: of every column that is shown, compared, grouped or ordered by. The largest number of picks of any one column
is what a row of the answer weighs.

What counts rows picks nothing (`count(*)`, `count(column)`, a rank over plain columns). `sum`, `avg`, `total` of the
same thing are one pick, as is each other aggregate: a number made of many rows, or the value of one of them. Functions
that fold the texts of many rows into one value never come here: `sql_shadow` refuses them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Final, NamedTuple

from remit_agent_runtime.toolhost.sql_clauses import (
    COMPOUND,
    RESERVED,
    alias,
    clauses,
    may_be_alias,
    path_at,
    plain_columns,
    windows,
    without_terms,
)
from remit_agent_runtime.toolhost.sql_schema import SourceSchema
from remit_agent_runtime.toolhost.sql_scope import NONE, Pick, Picks, Relation, Scope
from remit_agent_runtime.toolhost.sql_tokens import (
    OTHER,
    QUOTED,
    WORD,
    Group,
    Item,
    Items,
    Token,
    Unbalanced,
    at,
    fold,
    is_query,
    is_sign,
    is_word,
    read,
    split,
)

RANKS: Final = frozenset({"cume_dist", "dense_rank", "ntile", "percent_rank", "rank", "row_number"})
MOMENTS: Final = frozenset({"avg", "sum", "total"})
"""Of one and the same thing, these say the same but for the number of rows."""
AGGREGATES: Final = (
    frozenset({"count", "first_value", "lag", "last_value", "lead", "max", "median", "min", "nth_value"})
    | RANKS
    | MOMENTS
)
"""All that makes one value of many rows, among what a statement may call under a cap."""

MAX_SELECTS: Final = 200
MAX_LOOKS: Final = 500_000
"""Bounds of the reading itself, for common table expressions written out can grow without end: a look is at one column
of a FROM, or at one pick."""
MAX_JOINED: Final = 64
"""SQLite's own bound of the tables in one FROM."""

_JSON_COLUMNS: Final = ("key", "value", "type", "atom", "id", "parent", "fullkey", "path", "json", "root")


class Uncountable(ValueError):
    """The statement is too tangled to say what a row of its answer tells; the text says why."""


class Weight(NamedTuple):
    """A row of the answer may tell of `rows` rows of a table, by its `column`: `table.column`, or "" for none."""

    rows: int
    column: str


class _Cte(NamedTuple):
    """A common table expression, and those that it sees itself."""

    query: Items
    columns: tuple[str, ...]
    sees: _Ctes


_Ctes = Mapping[str, _Cte | None]
"""None for the one that is being read."""


def weigh(sql: str, schema: SourceSchema) -> Weight:
    """The weight of one row of the answer of a statement that SQLite accepts, at least 1; raises Uncountable."""
    try:
        picks = _Reading(schema).query(read(sql), {}, None).picks
    except (Unbalanced, RecursionError):
        raise Uncountable("its parentheses or names are nested in a way that is not understood") from None
    anywhere = Counter(pick.column for pick in picks if not pick.table)
    weights = Counter((pick.table, pick.column) for pick in picks)
    weighed = (Weight(rows + anywhere[column] * bool(table), f"{table}.{column}" if table else column)
               for (table, column), rows in weights.items())  # fmt: skip
    return max(weighed, default=Weight(1, ""))


class _Reading:
    """One pass over one statement."""

    def __init__(self, schema: SourceSchema) -> None:
        self._tables = {fold(table.name): tuple(map(fold, table.columns)) for table in schema.tables}
        self._views = {fold(view.name): view for view in schema.views}
        self._known = {column for columns in self._tables.values() for column in columns}
        self._numbers = count(1)
        self._selects = 0
        self._looks = 0

    def query(self, items: Items, ctes: _Ctes, outer: Scope | None) -> Relation:
        """`[WITH ...] SELECT ... [UNION ...] [ORDER BY ...] [LIMIT ...]`"""
        items, ctes = self._with(items, ctes)
        operators: set[str] = set()
        arms: list[list[Item]] = [[]]
        for item in items:
            if isinstance(item, Token) and is_word(item, *COMPOUND):
                operators.add(item.text)
                arms.append([])
            elif arms[-1] or not is_word(item, "all"):
                arms[-1].append(item)
        limit: list[Item] = []
        if len(arms) > 1:  # the last arm holds what limits them all
            begins = next((index for index, item in enumerate(arms[-1]) if is_word(item, "limit")), len(arms[-1]))
            arms[-1], limit = arms[-1][:begins], arms[-1][begins:]
        relations = [relation for arm in arms for relation in self._arm(tuple(arm), ctes, outer)]
        if not relations:
            raise Uncountable("it has no SELECT")
        if len(relations) == 1:
            return relations[0]
        made = self._compound(relations, only_unions=operators <= {"union"})
        return made.on_condition(self._expression(tuple(limit), Scope(outer), ctes))

    def _with(self, items: Items, ctes: _Ctes) -> tuple[Items, _Ctes]:
        if not is_word(at(items, 0), "with"):
            return items, ctes
        defined: dict[str, _Cte | None] = dict(ctes)
        index = 1
        if is_word(at(items, 1), "recursive") and not (isinstance(at(items, 2), Group) or is_word(at(items, 2), "as")):
            index = 2
        while True:
            name, index = at(items, index), index + 1
            columns: tuple[str, ...] = ()
            if isinstance(listed := at(items, index), Group):
                columns, index = tuple(_last_name(part) for part in split(listed.items)), index + 1
            while index < len(items) and not isinstance(items[index], Group):  # AS [NOT] [MATERIALIZED]
                index += 1
            body = at(items, index)
            if not isinstance(name, Token) or not isinstance(body, Group):
                raise Uncountable("a common table expression is not understood")
            defined[name.text] = _Cte(body.items, columns, defined)  # each sees those before and after it
            if not is_sign(at(items, index + 1), ","):
                return items[index + 1 :], defined
            index += 2

    def _compound(self, relations: list[Relation], *, only_unions: bool) -> Relation:
        if only_unions:  # each row comes from one arm, so what the arms pick counts once, not once for each
            place = next(self._numbers)
            relations = [_placed(relation, place) for relation in relations]
        first = relations[0]
        everything = NONE.union(*(relation.picks for relation in relations))
        same_width = len({len(relation.columns) for relation in relations}) == 1
        merged = not same_width or any(relation.merged for relation in relations)
        if merged or not only_unions:  # by EXCEPT, a row is there because of what another arm holds
            return Relation(tuple((name, everything) for name, _ in first.columns), everything, merged=merged)
        condition = NONE.union(*(relation.condition for relation in relations))
        columns = (
            (name, condition.union(*(relation.columns[index][1] for relation in relations)))
            for index, (name, _) in enumerate(first.columns)
        )
        return Relation(tuple(columns), condition)

    def _arm(self, items: Items, ctes: _Ctes, outer: Scope | None) -> Iterator[Relation]:
        """The relation of one SELECT, or one for each row of VALUES."""
        self._selects += 1
        if self._selects > MAX_SELECTS:
            raise Uncountable(f"written out, it has more than {MAX_SELECTS} SELECTs")
        scope = Scope(outer)
        if is_word(at(items, 0), "values"):
            for row in items:
                if isinstance(row, Group):
                    values = (self._expression(part, scope, ctes) for part in split(row.items))
                    yield Relation(tuple((f"column{index}", picks) for index, picks in enumerate(values, 1)))
            return
        if not is_word(at(items, 0), "select"):
            raise Uncountable("a part of it is no SELECT")
        results, source, rest = clauses(items)
        condition = self._from(source, scope, ctes)
        scope.windows = windows(rest)
        columns = []
        for part in split(results):
            for column in self._result(part, scope, ctes):
                self._look(1 + len(condition))
                columns.append(column)
        scope.aliases = {name: picks for name, picks in columns if name}
        condition |= self._expression(without_terms(rest, scope.aliases), scope, ctes)
        yield Relation(tuple(columns), merged=scope.merges).on_condition(condition)

    def _result(self, items: Items, scope: Scope, ctes: _Ctes) -> Iterator[tuple[str, Picks]]:
        """A term of a select list: `*`, `t.*`, or an expression with or without a name."""
        while is_word(at(items, 0), "distinct", "all"):
            items = items[1:]
        path = path_at(items, 0)
        if is_sign(at(items, len(items) - 1), "*") and len(items) == 2 * len(path) + 1:
            for names, relation in scope.relations:
                if not path or path[-1] in names:
                    yield from relation.columns
            return
        expression, name = alias(items)
        yield name, self._expression(expression, scope, ctes)

    def _from(self, items: Items, scope: Scope, ctes: _Ctes) -> Picks:
        """Put the relations into the scope; what decides which of their rows meet comes back."""
        functions: list[tuple[str, Items]] = []
        conditions: list[Item] = []
        natural, index, expected = False, 0, True
        while index < len(items):
            item = items[index]
            if is_sign(item, ",") or (is_word(item, "join") and not expected):
                expected, index = True, index + 1
                continue
            if not expected:
                natural |= is_word(item, "natural")
                scope.merges |= is_word(item, "using")
                conditions.append(_names(item) if is_word(at(items, index - 1), "using") else item)
                index += 1
                continue
            expected, path, arguments = False, path_at(items, index), None
            index += max(1, 2 * len(path) - 1)
            if path and isinstance(given := at(items, index), Group):
                arguments, index = given.items, index + 1
            index += is_word(at(items, index), "as")
            named = at(items, index)
            given_name = ""
            if isinstance(named, Token) and (is_word(at(items, index - 1), "as") or may_be_alias(named)):
                given_name, index = named.text, index + 1
            name = given_name or (path[-1] if path else "")
            if arguments is not None:
                functions.append((name, arguments))
            elif path:
                scope.relations.append((frozenset({name}), self._named(path, ctes, scope.outer)))
            elif isinstance(item, Group) and is_query(item.items):
                scope.relations.append((frozenset({name}), self.query(item.items, ctes, scope.outer)))
            elif isinstance(item, Group) and not given_name:
                inner = Scope(scope.outer)
                decided = self._from(item.items, inner, ctes)
                scope.merges |= inner.merges
                scope.relations += [(of, it._replace(condition=it.condition | decided)) for of, it in inner.relations]
            else:
                raise Uncountable("a part of its FROM is not understood")
        if len(scope.relations) > MAX_JOINED:
            raise Uncountable(f"it joins more than {MAX_JOINED} tables")
        for name, given_items in functions:
            picks = self._expression(given_items, scope, ctes)
            made = Relation(tuple((column, picks) for column in _JSON_COLUMNS), picks, merged=True)
            scope.relations.append((frozenset({name}), made))
        scope.merges |= natural or any(relation.merged for _, relation in scope.relations)
        decided = self._expression(tuple(conditions), scope, ctes)
        return decided.union(
            _shared(scope) if natural else NONE, *(relation.condition for _, relation in scope.relations)
        )

    def _named(self, path: list[str], ctes: _Ctes, outer: Scope | None) -> Relation:
        """A fresh instance of a table, a view or a common table expression; nothing of what is not offered."""
        name = path[-1]
        if len(path) == 1 and name in ctes:
            cte = ctes[name]
            if cte is None:
                raise Uncountable(f"{name} refers to itself")
            made = self.query(cte.query, {**cte.sees, name: None}, outer)
            return made.renamed(cte.columns) if cte.columns else made
        if name in self._tables:
            way = (next(self._numbers),)
            return Relation(
                tuple((column, frozenset({Pick(name, column, way)})) for column in self._tables[name]), base=True
            )
        if name in self._views:
            view = self._views[name]
            items = read(view.statement)
            body = next((index for index, item in enumerate(items) if is_word(item, "as")), len(items))
            return self.query(items[body + 1 :], {}, None).renamed(tuple(map(fold, view.columns)))
        return Relation(())

    def _expression(self, items: Items, scope: Scope, ctes: _Ctes) -> Picks:
        """All that the names, subqueries and calls in it pick."""
        picks: set[Pick] = set()
        index = 0
        while index < len(items):
            item, following = items[index], at(items, index + 1)
            if isinstance(item, Group):
                inside = self.query(item.items, ctes, scope).picks if is_query(item.items) else None
                picks |= self._expression(item.items, scope, ctes) if inside is None else inside
                index += 1
            elif is_word(item, "in") and (path := path_at(items, index + 1)):  # IN a_table
                picks |= self._named(path, ctes, scope).picks
                index += 2 * len(path)
            elif item.is_name and isinstance(following, Group):
                called, index = self._call(item.text, following.items, items, index + 2, scope, ctes)
                picks |= called
            else:
                path = path_at(items, index)
                index += max(1, 2 * len(path) - 1)
                if len(path) > 1 or (item.is_name and not is_word(item, *RESERVED)):
                    last = items[index - 1]
                    picks |= self._column(path, last.kind if isinstance(last, Token) else WORD, scope)
        self._look(len(picks))
        return frozenset(picks)

    def _look(self, times: int) -> None:
        self._looks += times
        if self._looks > MAX_LOOKS:
            raise Uncountable("written out, it names too many columns too many times")

    def _column(self, path: list[str], kind: str, scope: Scope) -> Picks:
        name, qualifier = path[-1], path[-2] if len(path) > 1 else None
        self._look(scope.width)
        found = scope.resolve(name, qualifier, kind)
        if found is None and qualifier is not None:
            found = scope.resolve(name, None, kind)
        if found is None and name in self._known and (qualifier is not None or kind == WORD):
            return frozenset({Pick("", name, (next(self._numbers),))})  # of some table, in a way not understood
        return found or NONE

    def _call(
        self, name: str, arguments: Items, items: Items, index: int, scope: Scope, ctes: _Ctes
    ) -> tuple[Picks, int]:
        """A call whose arguments end before `index`, and where it ends itself: after its FILTER and OVER."""
        if is_query(arguments):  # IN (SELECT ...), EXISTS (SELECT ...)
            return self.query(arguments, ctes, scope).picks, index
        filters: Items = ()
        over: Items | None = None
        while isinstance(word := at(items, index), Token) and is_word(word, "filter", "over"):
            given = at(items, index + 1)
            if isinstance(given, Group) and word.text == "filter":
                filters = given.items
            elif word.text == "over" and isinstance(given, Group):
                over = _window(given.items, scope)
            elif (
                word.text == "over"
                and given is not None
                and path_at(items, index + 1)
                and not is_word(given, *RESERVED)
            ):
                over = _window((given,), scope)
            else:
                break
            index += 2
        read_by_it = self._expression((*arguments, Token(OTHER, ","), *filters), scope, ctes)
        chosen_by = self._expression(over or (), scope, ctes)
        scalar = name in {"max", "min"} and len(split(arguments)) > 1
        if name not in AGGREGATES or scalar:
            return read_by_it | chosen_by, index
        if _only_counts(name, arguments, filters, over, scope):
            return (chosen_by | read_by_it if name in RANKS else chosen_by), index
        text = repr((arguments, filters, over))
        number = next(self._numbers)
        if "'random'" not in text:  # the same call twice is one pick, unless it gives something else each time
            number = scope.calls.setdefault(("moment" if name in MOMENTS else name, text), number)
        by_it = {Pick(pick.table, pick.column, (*pick.way, number)) for pick in read_by_it | chosen_by}
        return chosen_by | by_it, index


def _only_counts(name: str, arguments: Items, filters: Items, over: Items | None, scope: Scope) -> bool:
    """Whether the call tells how many and no more: of rows, or of a table's own column, and on no condition."""
    whole = name in RANKS or (name == "count" and (len(arguments) == 0 or is_sign(arguments[0], "*")))
    if filters or not (whole or name == "count"):
        return False
    return (whole or _is_plain(arguments, scope)) and _is_plain(over or (), scope)


def _is_plain(items: Items, scope: Scope) -> bool:
    """Whether these are columns of tables, of which nothing was made that could hold a condition."""
    columns = plain_columns(items)
    return columns is not None and all(map(scope.is_column_of_a_table, columns))


def _window(items: Items, scope: Scope) -> Items:
    """An OVER with the named windows that it stands on; those are never taken for plain."""
    for _ in range(len(scope.windows)):
        first = at(items, 0)
        if not (isinstance(first, Token) and first.text in scope.windows):
            break
        items = (*scope.windows[first.text], Token(OTHER, "+"), *items[1:])
    return items


def _names(listed: Item) -> Item:
    """The columns of a USING, which SQLite takes in single quotes too."""
    if not isinstance(listed, Group):
        return listed
    return Group(tuple(Token(QUOTED, item.text) if isinstance(item, Token) else item for item in listed.items
                       if not is_sign(item, ",")))  # fmt: skip


def _shared(scope: Scope) -> Picks:
    """What a NATURAL join may compare."""
    names = Counter(name for _, relation in scope.relations for name in {name for name, _ in relation.columns})
    return NONE.union(
        *(picks for _, relation in scope.relations for name, picks in relation.columns if names[name] > 1)
    )


def _placed(relation: Relation, place: int) -> Relation:
    """The picks of one arm of a UNION, numbered column by column, so that those of another arm are the same."""
    numbers: Counter[tuple[str, str]] = Counter()
    names: dict[Pick, Pick] = {}
    for pick in sorted(relation.picks):
        names[pick] = Pick(pick.table, pick.column, (place, numbers[pick.table, pick.column]))
        numbers[pick.table, pick.column] += 1
    columns = tuple((name, frozenset(names[pick] for pick in picks)) for name, picks in relation.columns)
    return relation._replace(columns=columns, condition=frozenset(names[pick] for pick in relation.condition))


def _last_name(items: Items) -> str:
    last = at(items, len(items) - 1)
    return last.text if isinstance(last, Token) else ""
