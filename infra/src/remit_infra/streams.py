"""Making the streams, with the installer's key: no service may create, change or delete one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error

from remit_chassis.streams import ask_jetstream, check_stream, expected, stream_info
from remit_contracts import subjects
from remit_contracts.errors import Tampered, Unavailable
from remit_infra.home import Home
from remit_infra.permissions import INSTALLER

DUPLICATE_WINDOW_NANOSECONDS: Final = 120 * 1_000_000_000
_STREAM_NAME_IN_USE: Final = 10058


def configuration(stream: str, *, replicas: int = 1) -> dict[str, Any]:
    """The body of STREAM.CREATE."""
    return {
        "name": stream,
        "num_replicas": replicas,
        "duplicate_window": DUPLICATE_WINDOW_NANOSECONDS,
        "max_bytes": -1,
        "max_consumers": -1,
        "max_msg_size": -1,
        "allow_direct": False,
        **expected(stream),
    }


async def ensure_stream(nc: Client, stream: str, *, replicas: int = 1) -> bool:
    """Create the stream unless it is there; True when it was created.

    One that is there and is not as it must be is never repaired in silence: Tampered, with its faults.
    """
    info = await stream_info(nc, stream)
    if info is None:
        answer = await ask_jetstream(nc, f"STREAM.CREATE.{stream}", configuration(stream, replicas=replicas))
        error = answer.get("error")
        if error and error.get("err_code") != _STREAM_NAME_IN_USE:  # another installer may have been quicker
            raise Unavailable(f"the stream {stream} cannot be created: {error.get('description')}")
        created, info = not error, await stream_info(nc, stream)
        if info is None:
            raise Unavailable(f"the stream {stream} was created and is not there")
    else:
        created = False
    if faults := check_stream(info):
        raise Tampered(f"the stream {stream} cannot be trusted: {'; '.join(faults)}")
    return created


async def ensure_streams(home: Home, url: str, tenants: Iterable[str], *, replicas: int = 1) -> list[str]:
    """RUNS and every tenant's EVENTS stream; returns the names of those that were created."""
    nc = await connect_installer(home, url)
    try:
        names = [subjects.RUNS_STREAM, *map(subjects.events_stream, tenants)]
        return [name for name in names if await ensure_stream(nc, name, replicas=replicas)]
    finally:
        await nc.close()


async def connect_installer(home: Home, url: str) -> Client:
    """A connection with the installer's key; raises Unavailable after one attempt."""
    nc = Client()
    try:
        await nc.connect(
            url,
            nkeys_seed_str=home.nkey_file(INSTALLER).read_text(),
            inbox_prefix=subjects.service_inbox(INSTALLER),
            name=INSTALLER,
            allow_reconnect=False,
            connect_timeout=5,
            error_cb=_ignore,  # what fails is raised by the call that it fails
        )
    except (Error, OSError) as fault:
        await nc.close()
        raise Unavailable(f"the bus at {url} does not let the installer in: {fault or type(fault).__name__}") from None
    return nc


async def _ignore(_fault: Exception) -> None:
    return None
