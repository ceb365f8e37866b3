"""A bus server that speaks TLS alone, and a service that trusts one authority: each of its connections is verified."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from fixtures_nats import Bus, running_bus
from fixtures_tls import self_signed
from integration.auth_platform import Platform

from remit_auth.settings import AuthSettings


async def test_a_service_its_relay_the_callout_and_the_system_account_all_speak_tls(tmp_path: Path) -> None:
    with running_bus(tmp_path / "home", tls=self_signed(tmp_path / "tls")) as bus:
        platform = Platform(bus)
        await platform.open()  # ready: the callout answers, and the system account has listed who is connected
        try:
            await platform.seed()
            stream = await platform.installer.jetstream().stream_info("EVENTS_acme")
            async with asyncio.timeout(20):  # the relay has published what was recorded
                while not stream.state.messages:
                    await asyncio.sleep(0.01)
                    stream = await platform.installer.jetstream().stream_info("EVENTS_acme")
            issued = await platform.ok("issue-token", {"handle": "ann", "ttl_seconds": 60})
            client = await platform.client(issued["token"], issued["session"])
            await client.close()
        finally:
            await platform.close()


def handshake(bus: Bus, authorities: Path) -> str | None:
    """The version of TLS that a service which trusts these speaks with the server; raises what its TLS raises."""
    context = AuthSettings(home=bus.home.path, nats_ca_file=authorities).nats_tls()
    assert context is not None
    with socket.create_connection(("127.0.0.1", bus.port), timeout=5) as plain:
        assert plain.recv(4096).startswith(b"INFO ")  # the server speaks first, and in the clear
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
            return secured.version()


def test_a_bus_that_another_authority_signed_is_not_trusted(tmp_path: Path) -> None:
    own, stranger = self_signed(tmp_path / "tls"), self_signed(tmp_path / "stranger")
    with running_bus(tmp_path / "home", tls=own) as bus:
        assert handshake(bus, own.authorities) == "TLSv1.3"
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(bus, stranger.authorities)
