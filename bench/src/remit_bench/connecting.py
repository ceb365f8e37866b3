"""A client's connection: the bus server asks the auth service, which verifies the token and signs the permissions."""

from __future__ import annotations

import time
from pathlib import Path

import nats

from remit_bench.rows import Row, percentile
from remit_bench.seeding import QUIET, token_of

CONNECTIONS = 100


async def measure(home: Path, url: str) -> list[Row]:
    """Connect and close, one after the other."""
    token = await token_of(home, url, QUIET)
    samples: list[float] = []
    for _ in range(CONNECTIONS):
        began = time.perf_counter()
        client = await nats.connect(url, token=token, allow_reconnect=False)
        samples.append(time.perf_counter() - began)
        await client.close()
    return [
        Row(
            name="connect: a user's connection through the auth callout, p50",
            value=percentile(samples, 0.5) * 1e3,
            unit="ms",
        )
    ]
