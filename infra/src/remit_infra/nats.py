"""The bus server's configuration: one template, filled for the embedded server or for a member of a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from remit_infra.permissions import ACCOUNTS, Permissions, table

CALLOUT_ISSUER = "callout-issuer"
CALLOUT_XKEY = "callout-xkey"


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files, as the server sees them."""

    certificate: Path
    key: Path
    authorities: Path


@dataclass(frozen=True, slots=True)
class Cluster:
    """Routes are `nats://host:6222` of the other members; route connections are mutually authenticated by `tls`."""

    name: str
    routes: tuple[str, ...]
    tls: Tls
    listen: str = "0.0.0.0:6222"


@dataclass(frozen=True, slots=True)
class BusServer:
    """What differs between installations.

    The embedded server has no monitoring port: on a shared machine it would tell every local user who is connected.
    `sync_interval` is "1s" on one node, where the databases are the record, and "always" in a cluster.
    """

    listen: str
    store_dir: Path
    server_name: str = "remit"
    sync_interval: str = "1s"
    max_connections: int = 4096
    max_file_store: str = "16GB"
    monitor_port: int | None = None
    """Loopback port of the monitoring endpoint."""
    tls: Tls | None = None
    cluster: Cluster | None = None


def render(server: BusServer, public_nkeys: Mapping[str, str]) -> str:
    """The configuration's text. `public_nkeys`: by user name, with those of the callout's issuer and xkey."""
    users = table()
    values = {
        "server_name": _quote(server.server_name),
        "listen": _quote(server.listen),
        "monitor": f'http: "127.0.0.1:{server.monitor_port}"' if server.monitor_port else "# no monitoring endpoint",
        "max_connections": str(server.max_connections),
        "store_dir": _quote(str(server.store_dir)),
        "max_file_store": server.max_file_store,
        "sync_interval": _quote(server.sync_interval),
        "tls": _tls(server.tls) if server.tls else "",
        "cluster": _cluster(server.cluster) if server.cluster else "",
        "callout_issuer": _quote(public_nkeys[CALLOUT_ISSUER]),
        "callout_xkey": _quote(public_nkeys[CALLOUT_XKEY]),
        "auth_users": json.dumps([public_nkeys[name] for name in users]),
    }
    for account in ACCOUNTS:
        values[account] = "\n".join(
            f"    # {name}\n    {_user(public_nkeys[name], permissions)}"
            for name, permissions in users.items()
            if permissions.account == account
        )
    template = files("remit_infra").joinpath("nats.conf.template").read_text()
    return re.sub(r"@(\w+)@", lambda hole: values[hole[1]], template)


def _user(nkey: str, permissions: Permissions) -> str:
    # An empty allow list would mean "everything" to the server, so that each side states one or denies all.
    publish: dict[str, Any] = {"allow": permissions.publish} if permissions.publish else {"deny": [">"]}
    if permissions.deny_publish:
        publish["deny"] = permissions.deny_publish
    rules: dict[str, Any] = {
        "publish": publish,
        "subscribe": {"allow": permissions.subscribe} if permissions.subscribe else {"deny": [">"]},
    }
    if permissions.responses:
        rules["allow_responses"] = {"max": 1, "expires": "1m"}
    user = {"nkey": nkey, "allowed_connection_types": ["STANDARD"], "permissions": rules}
    return json.dumps(user)


def _tls(tls: Tls, *, verify: bool = False) -> str:
    return (
        f"tls {{ cert_file: {_quote(str(tls.certificate))}, key_file: {_quote(str(tls.key))}, "
        f'ca_file: {_quote(str(tls.authorities))}, verify: {str(verify).lower()}, min_version: "1.3", timeout: 3 }}'
    )


def _cluster(cluster: Cluster) -> str:
    routes = ", ".join(map(_quote, cluster.routes))
    return (
        f"cluster {{ name: {_quote(cluster.name)}, listen: {_quote(cluster.listen)}, no_advertise: true,\n"
        f"  routes: [{routes}]\n  {_tls(cluster.tls, verify=True)}\n}}"
    )


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
