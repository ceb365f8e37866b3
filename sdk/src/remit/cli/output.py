"""Data on standard output, words on standard error. `--output json` writes one JSON value and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from remit.cli.context import current
from remit_contracts.errors import Refusal

out = Console(highlight=False)
words = Console(stderr=True, highlight=False)

STATUS_STYLES = {
    "completed": "green",
    "running": "cyan",
    "accepted": "cyan",
    "waiting": "yellow",
    "failed": "red",
    "cancelled": "yellow",
    "ready": "green",
    "stopped": "red",
    "ok": "green",
    "denied": "red",
}


def json_line(value: Any) -> str:
    """One line of JSON in ASCII: control and bidi characters from elsewhere stay escaped, on a terminal too."""
    return json.dumps(value, ensure_ascii=True, default=str, separators=(",", ":")).replace("\x7f", "\\u007f") + "\n"


def emit(data: Any, human: Callable[[], None]) -> None:
    """Write `data` as JSON, or let `human` draw it."""
    if current.wants_json:
        sys.stdout.write(json.dumps(data, ensure_ascii=True, default=str, indent=2) + "\n")
        sys.stdout.flush()
    else:
        human()


def inert(value: Any) -> Text:
    """Text from elsewhere, with control and bidi characters shown instead of obeyed."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in str(value))
    return Text(shown)


def styled(status: str) -> Text:
    """A status as word and colour."""
    return Text(status, style=STATUS_STYLES.get(status, ""))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Draw rows; cells are inert unless they are rich text already."""
    drawn = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else inert("" if cell is None else cell) for cell in row))
    out.print(drawn)


def pairs(values: Mapping[str, Any]) -> None:
    """Draw names and values, one a line."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        out.print(Text(f"{name:<{width}}  ", style="bold"), inert(value), sep="")


def say(text: str, *, style: str = "dim") -> None:
    """Words for whoever watches."""
    words.print(Text(text, style=style))


def refuse(refusal: Refusal) -> int:
    """Report a refusal and give its exit code."""
    if current.wants_json:
        sys.stdout.write(orjson.dumps(refusal.as_dict()).decode() + "\n")
    words.print(Text(f"{refusal.refusal_code}: ", style="bold red"), inert(refusal.reason), sep="")
    if refusal.decision_id:
        say(f"decision {refusal.decision_id}")
    if refusal.retry_after_seconds:
        say(f"try again in {refusal.retry_after_seconds:g} s")
    return refusal.exit_code
