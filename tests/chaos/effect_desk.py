"""A tool's server that believes nobody: its own ledger of what it did, and at each arrival a look at the platform's store.

It answers a POST with a bearer token after 5 to 50 ms. Before that it has written down the Idempotency-Key, whose token was shown,
when the request came, and whether the call's authorisation could be read in the store at that very moment: a store that
commits after the effect cannot hide from it.
"""

from __future__ import annotations

import random
import secrets
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple, Self

import orjson

AUTHORIZED = "runtime.Run.ToolCallAuthorized"
DENIED = "runtime.Run.ToolCallDenied"
CALLS = "SELECT topic FROM stored_events WHERE originator_id = ? AND topic IN (?, ?) ORDER BY originator_version"


class Effect(NamedTuple):
    """One line of the desk's ledger. `authorised` is None when the store could not be opened at that moment."""

    key: str
    who: str
    arrived_at: str
    authorised: bool | None

    @property
    def run(self) -> str:
        return self.key.partition(":")[0]


class EffectDesk:
    """Listens on a free port of loopback while in its `with` block. `effects` only grows."""

    def __init__(self, home: Path, ledger: Path, *, seed: str) -> None:
        self.effects: list[Effect] = []
        self.turned_away = 0
        self._home = home
        self._ledger = ledger
        self._random = random.Random(seed)
        self._writing = Lock()
        self._who_has: dict[str, str] = {}
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = Thread(target=self._server.serve_forever, name="effect-desk", daemon=True)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def token_for(self, who: str) -> str:
        """A new bearer token of TENANT/HANDLE."""
        token = secrets.token_urlsafe(32)
        self._who_has[token] = who
        return token

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def act(self, key: str, token: str) -> float | None:
        """Do what is asked, and say after how many seconds to answer; None for a token that nobody has."""
        arrived_at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        who = self._who_has.get(token)
        if who is None:
            self.turned_away += 1
            return None
        store = self._home / "store" / "agent-runtime" / f"{who.partition('/')[0]}.sqlite"
        effect = Effect(key, who, arrived_at, is_authorised(store, key))
        with self._writing:
            self.effects.append(effect)
            with self._ledger.open("ab") as ledger:
                ledger.write(orjson.dumps(effect._asdict()) + b"\n")
            return self._random.uniform(0.005, 0.05)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        desk = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                seconds = desk.act(self.headers.get("Idempotency-Key", ""), token)
                if seconds is None:
                    self._answer(401, {"error": "show this desk's bearer token"})
                    return
                time.sleep(seconds)  # a slow tool: what kills are aimed at
                self._answer(200, {"done": True})

            def _answer(self, status: int, body: dict[str, object]) -> None:
                payload = orjson.dumps(body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *args: object) -> None:
                """Quiet: the ledger is what counts."""

        return Handler


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """The asker was killed before its answer: the effect is in the ledger all the same."""


def is_authorised(store: Path, key: str) -> bool | None:
    """Whether the newest decided call of the run is the one that the key `{run}:{ordinal}` names, and is authorised.

    The connection reads only, so a log that a killed runtime left behind is not recovered by us: then the answer is None.
    """
    run, _, ordinal = key.partition(":")
    try:
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True, timeout=2)) as db:
            decided = [topic for (topic,) in db.execute(CALLS, (run, AUTHORIZED, DENIED))]
    except sqlite3.OperationalError:
        return None
    return len(decided) == int(ordinal) and decided[-1] == AUTHORIZED
