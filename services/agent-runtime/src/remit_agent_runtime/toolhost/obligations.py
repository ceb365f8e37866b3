"""What a permit obliges the tool host to withhold, read strictly: what is not understood completely is refused."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from remit_agent_runtime.toolhost.refusals import UNENFORCEABLE, UNKNOWN_OBLIGATION, ToolRefused
from remit_contracts.fast_decisions import Obligation

MAX_VALUES: Final = 1_000
MAX_TEXT: Final = 1_000


class RowFilter(NamedTuple):
    """Only rows whose `column` (or `table.column`) is among `values`: texts, finite numbers or booleans."""

    column: str
    values: tuple[str | int | float, ...]


class Bounds(NamedTuple):
    """All obligations of one call. `masked` are `column` or `table.column`, case-folded."""

    masked: frozenset[str] = frozenset()
    max_rows: int | None = None
    filters: tuple[RowFilter, ...] = ()

    def masks(self, table: str, column: str) -> bool:
        """Whether that column must not be read; SQLite's names do not tell cases apart."""
        return column.lower() in self.masked or f"{table}.{column}".lower() in self.masked


def read(obligations: Sequence[Obligation], *, enforces: Collection[str]) -> Bounds:
    """The bounds; raises ToolRefused for an obligation that is unknown, ill-shaped or beyond what the tool enforces."""
    masked: set[str] = set()
    limits: list[int] = []
    filters: list[RowFilter] = []
    for obligation in obligations:
        given = obligation.properties
        match obligation.type:
            case "mask_fields":
                _require_keys(obligation, {"fields"})
                masked |= {_name(obligation, field).lower() for field in _listed(obligation, given["fields"])}
            case "max_rows":
                _require_keys(obligation, {"limit"})
                limits.append(_limit(obligation, given["limit"]))
            case "row_filter":
                _require_keys(obligation, {"column", "op", "values"})
                filters.append(_filter(obligation, given))
            case _:
                raise ToolRefused(f"the obligation {obligation.type[:80]!r} is not known here", code=UNKNOWN_OBLIGATION)
        if obligation.type not in enforces:
            raise ToolRefused(f"this tool cannot honour the obligation {obligation.type}", code=UNENFORCEABLE)
    return Bounds(frozenset(masked), min(limits, default=None), tuple(filters))


def _require_keys(obligation: Obligation, keys: set[str]) -> None:
    if set(obligation.properties) != keys:
        raise _ill_shaped(obligation)


def _limit(obligation: Obligation, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise _ill_shaped(obligation)
    return value


def _filter(obligation: Obligation, given: Mapping[str, Any]) -> RowFilter:
    values = _listed(obligation, given["values"])
    if given["op"] not in ("in", "eq") or (given["op"] == "eq" and len(values) != 1):
        raise _ill_shaped(obligation)
    for value in values:
        fits = (
            (isinstance(value, str) and "\0" not in value and len(value) <= MAX_TEXT)
            or (isinstance(value, int) and -(2**63) <= value < 2**63)
            or (isinstance(value, float) and math.isfinite(value))
        )
        if not fits:
            raise _ill_shaped(obligation)
    return RowFilter(_name(obligation, given["column"]), tuple(values))


def _listed(obligation: Obligation, value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_VALUES:
        raise _ill_shaped(obligation)
    return value


def _name(obligation: Obligation, value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT:
        raise _ill_shaped(obligation)
    return value


def _ill_shaped(obligation: Obligation) -> ToolRefused:
    return ToolRefused(f"the obligation {obligation.type} has a shape that is not known here", code=UNKNOWN_OBLIGATION)
