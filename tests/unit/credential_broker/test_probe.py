"""Testing a connection: one request to one address that was looked at, and nothing that the other side could abuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from remit_credential_broker import probe as probing
from remit_credential_broker.probe import ProbeResult, probe

Answer = Callable[[bytes], bytes]


@asynccontextmanager
async def a_server(answer: Answer) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A host on loopback that answers one request at a time, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer(asked[-1]))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def checks_the_bearer(request: bytes) -> bytes:
    ok = b"\r\nAuthorization: Bearer sk-good\r\n" in request
    return b"HTTP/1.1 204 No Content\r\n\r\n" if ok else b"HTTP/1.1 401 Unauthorized\r\n\r\n"


async def test_a_secret_that_is_taken_and_one_that_is_not() -> None:
    async with a_server(checks_the_bearer) as (host, asked):
        assert await probe(host, "/me?x=1", "sk-good", private_hosts=True) == ProbeResult(204, None)
        refused = await probe(host, "/me", "sk-bad", private_hosts=True)
    assert (refused.status, refused.ok) == (401, False)
    assert asked[0].startswith(b"GET /me?x=1 HTTP/1.1\r\nHost: " + host.encode() + b"\r\n")


async def test_a_redirect_is_not_followed() -> None:
    async with a_server(lambda _: b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n") as (host, asked):
        assert (await probe(host, "/", "s", private_hosts=True)).status == 302
    assert len(asked) == 1


@pytest.mark.parametrize(
    "garbage", [b"", b"\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 999 No\r\n", b"HTTP/1.1 2000\r\n", b"x" * 100_000]
)
async def test_garbage_is_a_fault_and_no_status(garbage: bytes) -> None:
    async with a_server(lambda _: garbage) as (host, _):
        result = await probe(host, "/", "sk-canary", private_hosts=True)
    assert result == ProbeResult(None, "answered something that is no HTTP")


async def test_a_host_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PROBE_SECONDS", 0.05)
    hanging = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hanging.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        result = await probe(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "/", "s", private_hosts=True)
        hanging.set()
    assert result.status is None
    assert "no answer" in (result.fault or "")


async def test_a_closed_port_is_a_fault() -> None:
    async with a_server(checks_the_bearer) as (host, _):
        pass
    assert "cannot be reached" in ((await probe(host, "/", "s", private_hosts=True)).fault or "")


@pytest.mark.parametrize("host", ["127.0.0.1:80", "[::1]:80", "[::ffff:7f00:1]:80", "10.0.0.1:80", "0.0.0.0:80"])
async def test_no_private_address_is_reached_unless_an_operator_allows_it(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio, "open_connection", unreachable_by_design)
    assert "not a public one" in ((await probe(host, "/", "s", private_hosts=False)).fault or "")


@pytest.mark.parametrize(
    "host", ["169.254.169.254:80", "[fe80::1]:80", "0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80"]
)
async def test_a_metadata_service_is_never_reached(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "open_connection", unreachable_by_design)
    assert "not a public one" in ((await probe(host, "/", "s", private_hosts=True)).fault or "")


async def test_a_name_that_means_a_private_address_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "open_connection", unreachable_by_design)
    assert "not a public one" in ((await probe("localhost:80", "/", "s", private_hosts=False)).fault or "")


async def test_outside_loopback_the_secret_travels_by_tls_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool, str | None]] = []

    async def address(name: str, port: int) -> object:
        return ip_address("93.184.216.34")

    def connect(host: str, port: int, *, ssl: object, server_hostname: str | None, limit: int) -> Awaitable[None]:
        seen.append((host, ssl is not None, server_hostname))
        raise OSError("no network here")

    monkeypatch.setattr(probing, "_address", address)
    monkeypatch.setattr(asyncio, "open_connection", connect)
    await probe("desk.example:80", "/", "s", private_hosts=True)
    assert seen == [("93.184.216.34", True, "desk.example")]


async def unreachable_by_design(*_: object, **__: object) -> None:
    raise AssertionError("it was connected to")
