"""Full-text search over a folder of Markdown, one index per tenant and tool, in memory, made at first use.

A passage is what stands under one heading, cut at MAX_PASSAGE_CHARACTERS. The index is made again when a file changes.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from remit_agent_runtime.toolhost.definitions import ToolInvalid
from remit_agent_runtime.toolhost.refusals import BAD_ARGUMENTS, ToolRefused

MAX_FILES: Final = 2_000
MAX_FILE_BYTES: Final = 1024 * 1024
MAX_PASSAGE_CHARACTERS: Final = 1_500
MAX_QUERY_CHARACTERS: Final = 1_000
MAX_TERMS: Final = 32
MAX_PASSAGES: Final = 20

_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*\s*$")
_SEARCH: Final = "SELECT file, heading, text FROM passages WHERE passages MATCH ? ORDER BY rank LIMIT ?"
_TERM = re.compile(r"\w+")


class Passage(NamedTuple):
    """`file` is relative to the folder; `heading` is the path of headings above it."""

    file: str
    heading: str
    text: str


class Query(NamedTuple):
    """A call's arguments, checked."""

    terms: tuple[str, ...]
    limit: int


def query_of(arguments: dict[str, Any], *, passages: int) -> Query:
    """The query in `{"query": ..., "limit"?: n}`; raises ToolRefused."""
    query, limit = arguments.get("query"), arguments.get("limit", passages)
    if not set(arguments) <= {"query", "limit"} or not isinstance(query, str) or len(query) > MAX_QUERY_CHARACTERS:
        raise ToolRefused("the arguments are {'query': 'words', 'limit'?: 1 to 20}", code=BAD_ARGUMENTS)
    if type(limit) is not int or not 1 <= limit <= MAX_PASSAGES:
        raise ToolRefused(f"limit is a number from 1 to {MAX_PASSAGES}", code=BAD_ARGUMENTS)
    terms = tuple(dict.fromkeys(term.lower() for term in _TERM.findall(query)))[:MAX_TERMS]
    if not terms:
        raise ToolRefused("the query holds no word to look for", code=BAD_ARGUMENTS)
    return Query(terms, limit)


class DocumentIndexes:
    """The indexes of all folders, each by its tenant and tool; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str, Path], tuple[Any, sqlite3.Connection]] = {}

    def search(self, key: tuple[str, str], folder: Path, query: Query) -> list[Passage]:
        """The best passages, best first; raises ToolInvalid when the folder cannot be read."""
        # Each word is quoted, so that nothing in a query is FTS5 syntax; BM25 ranks passages with more of them higher.
        match = " OR ".join(f'"{term}"' for term in query.terms)
        with self._lock:
            rows = self._index(key, folder).execute(_SEARCH, (match, query.limit))
            return [Passage(*row) for row in rows]

    def _index(self, key: tuple[str, str], folder: Path) -> sqlite3.Connection:
        place = (*key, folder)
        try:
            files = list(_files(folder))
            version = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
            known = self._made.get(place)
            if known is not None and known[0] == version:
                return known[1]
            connection = _make(folder, files)
        except (OSError, sqlite3.Error) as fault:
            raise ToolInvalid(f"the documents cannot be indexed ({fault})") from None
        if known is not None:
            known[1].close()
        self._made[place] = (version, connection)
        return connection

    def close(self) -> None:
        """Forget all indexes."""
        with self._lock:
            for _, connection in self._made.values():
                connection.close()
            self._made.clear()


def passages_of(file: str, markdown: str) -> Iterator[Passage]:
    """The passages of one file; `#` inside fenced code is no heading."""
    path: list[str] = []
    lines: list[str] = []
    fenced = False
    for line in markdown.splitlines():
        fenced ^= line.lstrip().startswith(("```", "~~~"))
        heading = None if fenced else _HEADING.match(line)
        if heading is None:
            lines.append(line)
            continue
        yield from _cut(file, path, lines)
        path, lines = [*path[: len(heading.group(1)) - 1], heading.group(2)], []
    yield from _cut(file, path, lines)


def _cut(file: str, path: list[str], lines: list[str]) -> Iterator[Passage]:
    text = "\n".join(lines).strip()
    for start in range(0, len(text), MAX_PASSAGE_CHARACTERS):
        yield Passage(file, " > ".join(path), text[start : start + MAX_PASSAGE_CHARACTERS])


def _files(folder: Path) -> Iterator[Path]:
    """Markdown files inside the folder: links that lead out of it are not followed."""
    root = folder.resolve(strict=True)
    found = sorted(path for path in root.rglob("*.md") if path.resolve().is_relative_to(root) and path.is_file())
    yield from (path for path in found[:MAX_FILES] if path.stat().st_size <= MAX_FILE_BYTES)


def _make(folder: Path, files: list[Path]) -> sqlite3.Connection:
    root = folder.resolve(strict=True)
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    connection.execute("CREATE VIRTUAL TABLE passages USING fts5(file UNINDEXED, heading, text, tokenize = 'porter')")
    for file in files:
        name = file.relative_to(root).as_posix()
        rows = passages_of(name, file.read_text(encoding="utf-8", errors="replace"))
        connection.executemany("INSERT INTO passages VALUES (?, ?, ?)", rows)
    return connection
