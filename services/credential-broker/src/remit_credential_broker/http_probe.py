"""Shows a secret to the host that it is for, and reports the HTTP status. Redirects are not followed."""

from __future__ import annotations

import http.client

from remit_contracts.errors import Unavailable

TIMEOUT_SECONDS = 5.0


def probe(host: str, path: str, secret: str) -> int:
    """GET `path` of `host:port`; blocks. Port 443 is asked by TLS. Raises Unavailable when nobody answers."""
    name, _, port = host.rpartition(":")
    made = http.client.HTTPSConnection if port == "443" else http.client.HTTPConnection
    connection = made(name, int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {secret}"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as fault:
        raise Unavailable(f"{host} does not answer: {type(fault).__name__}") from None
    finally:
        connection.close()
