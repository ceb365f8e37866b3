"""Asking a connection's host whether it takes the secret: one GET, one status line, nothing followed, nothing kept.

A host's name is resolved once and the address that was looked at is the one that is connected to, so that a name which
changes its mind reaches nothing else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from typing import Final, NamedTuple

from remit_contracts.connections import split_host

PROBE_SECONDS: Final = 5.0
MAX_STATUS_LINE_BYTES: Final = 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [ -~]*)?\r?\n")


class ProbeResult(NamedTuple):
    """A status, or why there is none."""

    status: int | None
    fault: str | None

    @property
    def ok(self) -> bool:
        """The host took the secret, or sent the asker elsewhere."""
        return self.status is not None and 200 <= self.status < 400


class Unreachable(Exception):
    """No status; the text says why and holds nothing of the secret."""


async def probe(host: str, path: str, secret: str, *, private_hosts: bool) -> ProbeResult:
    """Ask `host` (HOST:PORT) for `path` with the bearer secret: over TLS, and in the clear on loopback alone."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return ProbeResult(await _status(host, path, secret, private_hosts), None)
    except TimeoutError:
        return ProbeResult(None, f"no answer within {PROBE_SECONDS:.0f} s")
    except Unreachable as fault:
        return ProbeResult(None, str(fault))
    except ssl.SSLCertVerificationError as fault:
        return ProbeResult(None, f"its certificate is not trusted: {fault.verify_message}")
    except OSError as fault:
        return ProbeResult(None, f"cannot be reached: {fault.strerror or type(fault).__name__}")


async def _status(host: str, path: str, secret: str, private_hosts: bool) -> int:
    name, port = split_host(host)
    address = await _address(name.strip("[]"), port)
    if not (_is_public(address) or (private_hosts and _is_private(address))):
        raise Unreachable(
            "its address is not a public one: an operator may allow it (REMIT_BROKER_PROBE_PRIVATE_HOSTS)"
        )
    tls = None if address.is_loopback else await asyncio.to_thread(ssl.create_default_context)
    reader, writer = await asyncio.open_connection(
        str(address), port, ssl=tls, server_hostname=name if tls else None, limit=MAX_STATUS_LINE_BYTES
    )
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\n"
            "Accept: */*\r\nUser-Agent: remit-credential-broker\r\nConnection: close\r\n\r\n".encode("ascii")
        )
        await writer.drain()
        line = await reader.readline()
    except ValueError:
        raise Unreachable("answered something that is no HTTP") from None
    finally:
        writer.close()
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise Unreachable("answered something that is no HTTP")
    return int(match[1])


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast


def _is_private(address: Address) -> bool:
    # Never link-local: a cloud's metadata service lives there, and hands out credentials.
    odd = address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved
    return address.is_loopback or (address.is_private and not odd)


async def _address(name: str, port: int) -> Address:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        raise Unreachable(f"{name} cannot be resolved") from None
    address = ipaddress.ip_address(found[0][4][0])
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
