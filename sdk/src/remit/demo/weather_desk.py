"""A real HTTP service with a door: it answers only who shows its bearer token, and keeps a ledger of what it did."""

from __future__ import annotations

import hmac
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import orjson

MAX_KEY = 200


class WeatherDesk:
    """Listens on a free port of loopback while in its `with` block."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self.answered: list[str] = []
        """Idempotency keys of the requests that it answered, in order."""
        self.turned_away = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = Thread(target=self._server.serve_forever, name="weather-desk", daemon=True)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        desk = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shown = self.headers.get("Authorization", "")
                if not hmac.compare_digest(shown.encode(), f"Bearer {desk.token}".encode()):
                    desk.turned_away += 1
                    self._answer(401, {"error": "show this desk's bearer token"})
                    return
                desk.answered.append(self.headers.get("Idempotency-Key", "")[:MAX_KEY])
                asked = parse_qs(urlsplit(self.path).query)
                self._answer(200, {"desk": "open", "asked": {key: values[0] for key, values in asked.items()}})

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
