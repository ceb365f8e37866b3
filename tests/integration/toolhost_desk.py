"""A real HTTP server that behaves as asked, and keeps its own ledger of what reached it."""

from __future__ import annotations

import asyncio
import base64
import gzip
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

import orjson


class Seen(NamedTuple):
    """One request: `line` is `METHOD TARGET`."""

    line: str
    headers: dict[str, str]
    body: bytes


class Desk:
    """Listens on a free port of loopback. The target's last word says what to do: see `_answer`."""

    def __init__(self) -> None:
        self.ledger: list[Seen] = []
        self.reached = asyncio.Event()
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.ledger.append(Seen(head[0].rpartition(" ")[0], headers, body))
            self.reached.set()
            await self._answer(reader, writer, self.ledger[-1])
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
        wish = seen.line.split("?")[0].rpartition("/")[2]
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        status, kind, payload, more = "200 OK", "application/json", orjson.dumps({"airport": wish}), ""
        if wish == "echo":
            encoded = base64.b64encode(b"x" + token.encode()).decode()
            payload = orjson.dumps({"shown": token, "nested": [{token: f"Bearer {token}"}], "basic": encoded})
        elif wish == "echo-error":
            status, kind, payload = "403 Forbidden", "text/plain", f"bad token {token}".encode()
        elif wish == "redirect":
            status, more = "302 Found", f"Location: http://{self.address}/stolen\r\n"
        elif wish == "big":
            payload = orjson.dumps("x" * 300_000)
        elif wish == "gzip":
            payload, more = gzip.compress(b'"' + b"x" * 10_000_000 + b'"'), "Content-Encoding: gzip\r\n"
        elif wish == "junk":
            payload = b"{not json"
        elif wish == "silent":
            await reader.read()  # until the other side gives up
            return
        elif wish == "drop":
            return
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(payload)}\r\n{more}\r\n"
        writer.write(head.encode() + payload)
        await writer.drain()
