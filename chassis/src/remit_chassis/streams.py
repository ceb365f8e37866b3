"""Whether a stream is what we need: looked at by every service that uses one before it is ready.

Some flags of a stream decide who can erase or redirect events (rollup headers, per-message TTL, schedules), so each
must be as written here, and a feature that this list does not know must be off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from remit_contracts import subjects
from remit_contracts.errors import Tampered, Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

REPLY_SECONDS: Final = 5.0

REQUIRED: Final[dict[str, Any]] = {
    "storage": "file",
    "discard": "new",
    "deny_delete": True,
    "deny_purge": True,
    "max_age": 0,
    "max_msgs_per_subject": -1,
}
"""What holds for every stream of ours; `retention`, `subjects` and `max_msgs` depend on which one it is."""

_FREE: Final = frozenset(
    {
        "name",
        "description",
        "metadata",
        "num_replicas",
        "placement",
        "compression",
        "duplicate_window",
        "max_bytes",
        "max_msg_size",
        "max_consumers",
        "consumer_limits",
    }
)


def expected(stream: str) -> dict[str, Any]:
    """The settings that a stream of that name must have; raises ValueError for a name that is none of ours."""
    if stream == subjects.RUNS_STREAM:
        return {**REQUIRED, "retention": "workqueue", "subjects": [subjects.RUNS_SUBJECTS], "max_msgs": 100_000}
    prefix, _, tenant = stream.partition("_")
    if prefix == "EVENTS":
        return {
            **REQUIRED,
            "retention": "limits",
            "subjects": [subjects.events_of_tenant(tenant)],
            "max_msgs": -1,
            "max_bytes": -1,
        }
    raise ValueError(f"{stream!r} is no stream of Remit's")


def check_stream(info: Mapping[str, Any]) -> list[str]:
    """Faults of a stream, in words; none means fit for use.

    `info` is the server's own answer to STREAM.INFO (`{"config": {...}, ...}`), because client libraries drop settings
    that they do not know.
    """
    config = info["config"]
    wanted = expected(config["name"])
    faults = [
        f"{setting} is {config.get(setting)!r} and must be {value!r}"
        for setting, value in wanted.items()
        if (config.get(setting) or 0) != (value or 0)
    ]
    faults += [
        f"{setting} is on ({value!r}) and must be off"
        for setting, value in config.items()
        if value and setting not in wanted and setting not in _FREE
    ]
    return faults


async def stream_info(nc: Client, stream: str) -> dict[str, Any] | None:
    """The server's raw answer about a stream, or None when there is none; raises Unavailable when nobody answers."""
    answer = await ask_jetstream(nc, f"STREAM.INFO.{stream}")
    error = answer.get("error")
    if error and error.get("code") == 404:
        return None
    if error:
        raise Unavailable(f"the stream {stream} cannot be looked at: {error.get('description')}")
    return answer


async def require_stream(nc: Client, stream: str) -> dict[str, Any]:
    """What `stream_info` says of a fit stream; raises Unavailable when absent, and Tampered with its faults."""
    info = await stream_info(nc, stream)
    if info is None:
        raise Unavailable(f"the stream {stream} does not exist yet")
    if faults := check_stream(info):
        raise Tampered(f"the stream {stream} cannot be trusted: {'; '.join(faults)}")
    return info


async def stream_names(nc: Client) -> list[str]:
    """Every stream of the bus; raises Unavailable."""
    names: list[str] = []
    while True:
        answer = await ask_jetstream(nc, "STREAM.NAMES", {"offset": len(names)})
        if error := answer.get("error"):
            raise Unavailable(f"the streams cannot be listed: {error.get('description')}")
        page = answer.get("streams") or []
        names += page
        if not page or len(names) >= int(answer.get("total", 0)):
            return names


async def ask_jetstream(nc: Client, call: str, payload: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One call of JetStream's API (`STREAM.INFO.RUNS`), its answer as it came."""
    from nats.errors import Error, NoRespondersError

    body = json.dumps(payload).encode() if payload else b""
    try:
        reply = await nc.request(f"$JS.API.{call}", body, timeout=REPLY_SECONDS)
    except NoRespondersError:
        raise Unavailable("the bus has no JetStream") from None
    except (Error, TimeoutError) as fault:
        raise Unavailable(f"JetStream did not answer {call}: {fault or type(fault).__name__}") from None
    answer: dict[str, Any] = json.loads(reply.data)
    return answer
