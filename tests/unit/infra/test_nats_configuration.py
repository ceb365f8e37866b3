"""One template: what it says for a laptop and for a cluster, both read by the real server's own check."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from fixtures_tls import self_signed

from remit_chassis.nkeys import SignKey, XKey
from remit_infra.engines import nats_server_program
from remit_infra.nats import CALLOUT_ISSUER, CALLOUT_XKEY, BusServer, Cluster, Tls, render
from remit_infra.permissions import table


@pytest.fixture
def nkeys() -> dict[str, str]:
    public = {user: SignKey.create("user").public for user in table()}
    return {**public, CALLOUT_ISSUER: SignKey.create("account").public, CALLOUT_XKEY: XKey.create().public}


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    """A self-signed certificate: enough for the server to read the configuration."""
    return self_signed(tmp_path)


def check(tmp_path: Path, text: str) -> str:
    """What the server says about a configuration; fails when it would not start with it."""
    (tmp_path / "nats.conf").write_text(text)
    command = [nats_server_program(), "-t", "-c", str(tmp_path / "nats.conf")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    return checked.stderr


def test_the_embedded_configuration_is_one_that_the_server_takes(tmp_path: Path, nkeys: dict[str, str]) -> None:
    text = render(BusServer(listen="127.0.0.1:4222", store_dir=tmp_path / "js"), nkeys)
    assert "is valid" in check(tmp_path, text)
    assert "@" not in text
    assert "no monitoring endpoint" in text


def test_a_clusters_member_has_routes_encryption_and_synced_writes(
    tmp_path: Path, nkeys: dict[str, str], tls: Tls
) -> None:
    cluster = Cluster("remit", ("nats://n2:6222", "nats://n3:6222"), tls)
    server = BusServer(
        listen="0.0.0.0:4222",
        store_dir=tmp_path / "js",
        server_name="n1",
        sync_interval="always",
        monitor_port=8222,
        tls=tls,
        cluster=cluster,
    )
    text = render(server, nkeys)
    assert "is valid" in check(tmp_path, text)
    assert 'http: "127.0.0.1:8222"' in text
    assert text.count("tls {") == 2
    assert "verify: true" in text.partition("cluster {")[2]


def test_a_path_cannot_break_out_of_its_quotes(tmp_path: Path, nkeys: dict[str, str]) -> None:
    odd = tmp_path / 'a" http: 0.0.0.0:1 #$HOME'
    text = render(BusServer(listen="127.0.0.1:4222", store_dir=odd), nkeys)
    assert json.dumps(str(odd)) in text
    check(tmp_path, text)


def test_every_user_is_named_and_passes_by_the_callout(nkeys: dict[str, str], tmp_path: Path) -> None:
    text = render(BusServer(listen="127.0.0.1:4222", store_dir=tmp_path), nkeys)
    for user in table():
        assert text.count(nkeys[user]) == 2, user  # once with its permissions, once among auth_users


def test_no_user_of_the_application_has_rights_that_a_request_can_lend() -> None:
    assert {user for user, permissions in table().items() if permissions.responses} == {"auth-callout"}
