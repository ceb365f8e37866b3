"""Who may say and hear what on the bus: one table, from which the server's configuration is rendered.

`ASKS` says which service asks which verbs; who may answer into whose inbox follows from it. Nothing else is allowed.

A responder gets the inboxes of those who may ask it, and no `allow_responses`: that NATS option lets whoever sends a
request choose one subject for the responder to publish to, any at all, and an explicit deny does not stop it (tried on
nats-server 2.15.1). A service that was taken over, with a user as its accomplice, could have written another service's
events that way, or deleted a stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from remit_contracts import subjects
from remit_contracts.subjects import SERVICES

INSTALLER: Final = "installer"
CALLOUT: Final = "auth-callout"
SYSTEM: Final = "sys"
"""The key of the system account, which auth alone holds: who is connected, and cutting somebody off."""
ACCOUNTS: Final = ("AUTH", subjects.USERS_ACCOUNT, "SYS")

ANSWERS_USERS: Final = ("auth", "credential-broker", "agent-runtime", "audit")
"""Services with `cmd` verbs. Policy has none: users reach it through whoever enforces."""

ASKS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "auth": (("credential-broker", "user-key"),),
    "policy": (("auth", "describe-subject"), ("auth", "describe-tenant"), ("credential-broker", "user-key")),
    "credential-broker": (("policy", "decide"), ("auth", "describe-session")),
    "agent-runtime": (
        ("policy", "decide"),
        ("auth", "describe-session"),
        ("credential-broker", "lease"),
        ("credential-broker", "user-key"),
    ),
    "audit": (
        ("policy", "decide"),
        ("auth", "describe-session"),
        ("auth", "resolve"),
        ("credential-broker", "user-key"),
        *((service, verb) for service in SERVICES for verb in ("log-head", "republish")),
    ),
    INSTALLER: (
        ("auth", "*"),
        ("audit", "check"),
        ("audit", "follow"),
        ("policy", "info"),
        ("policy", "redecide"),
        *((service, verb) for service in SERVICES for verb in ("health", "metrics")),
    ),
}
"""Asker -> (service, verb) of every `rpc` that it may send, for any tenant and user."""

SAYS_LIVE: Final[dict[str, tuple[str, ...]]] = {
    "auth": (subjects.any_live("directory"),),
    "agent-runtime": (subjects.any_live("run", "*"),),
}
HEARS_LIVE: Final[dict[str, tuple[str, ...]]] = {"policy": (subjects.any_live("directory"),)}

_STREAM_API: Final = "$JS.API.STREAM"
_CONSUMER_API: Final = "$JS.API.CONSUMER"


@dataclass(frozen=True, slots=True)
class Permissions:
    """What one nkey user may do. `responses`: may answer each message once, within a minute, wherever it wants."""

    account: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    deny_publish: tuple[str, ...] = ()
    responses: bool = False


def table() -> dict[str, Permissions]:
    """Every user of the configuration, by the name of its nkey file."""
    return {
        **{service: _service(service) for service in SERVICES},
        CALLOUT: Permissions("AUTH", subscribe=(subjects.AUTH_CALLOUT,), deny_publish=(">",), responses=True),
        INSTALLER: Permissions(
            subjects.USERS_ACCOUNT,
            publish=(
                *_asks(INSTALLER),
                *(f"{_STREAM_API}.{call}.*" for call in ("CREATE", "UPDATE", "DELETE", "INFO")),
                f"{_STREAM_API}.NAMES",
                f"{_STREAM_API}.LIST",
            ),
            subscribe=(_own_inbox(INSTALLER),),
        ),
        SYSTEM: Permissions(
            "SYS",
            publish=(
                subjects.BUS_SERVERS,
                subjects.list_connections("*"),
                subjects.kick("*"),
            ),
            subscribe=(subjects.CLIENTS_COME_AND_GO, _own_inbox(SYSTEM)),
        ),
    }


def _service(service: str) -> Permissions:
    hears = [subjects.any_request("rpc", service, "*"), _own_inbox(service), *HEARS_LIVE.get(service, ())]
    says = [
        *_asks(service),
        *_answers(service),
        *SAYS_LIVE.get(service, ()),
        subjects.any_event(service),
        f"{_STREAM_API}.INFO.*",  # the relay checks its streams, and reads its own last message to resume after it
        f"{_STREAM_API}.MSG.GET.*",
        f"{_STREAM_API}.NAMES",  # a tenant whose store is gone is known by its stream alone
    ]
    denied = [f"{_STREAM_API}.{call}.{subjects.RUNS_STREAM}" for call in ("INFO", "MSG.GET")]
    if service in ANSWERS_USERS:
        hears.append(subjects.any_request("cmd", service, "*"))
        says.append(f"{subjects.USER_INBOX}.*.*.*.>")
        says.append(subjects.any_live("refusal"))
    if service == "agent-runtime":
        says += [subjects.RUNS_SUBJECTS, *_durable(subjects.RUNS_STREAM, service)]
        denied = []
    if service == "audit":
        says += [f"{_STREAM_API}.LIST", *_durable("*", service)]
        denied += _durable(subjects.RUNS_STREAM, service)  # a second consumer of a work queue takes jobs away
    return Permissions(subjects.USERS_ACCOUNT, tuple(says), tuple(hears), tuple(denied))


def _asks(asker: str) -> list[str]:
    return [subjects.any_request("rpc", service, verb) for service, verb in ASKS[asker]]


def _answers(service: str) -> list[str]:
    """The installer's client has one inbox for all; a service has one for each that it asks: see chassis' requester."""
    askers = [asker for asker, asked in ASKS.items() if any(answerer == service for answerer, _ in asked)]
    return [
        _own_inbox(asker) if asker == INSTALLER else f"{subjects.service_inbox(asker)}.{service}.>" for asker in askers
    ]


def _own_inbox(name: str) -> str:
    return f"{subjects.service_inbox(name)}.>"


def _durable(stream: str, name: str) -> list[str]:
    """Create, look at, pull from and acknowledge one durable consumer; deleting or pausing it is not in here."""
    return [
        f"{_CONSUMER_API}.DURABLE.CREATE.{stream}.{name}",
        f"{_CONSUMER_API}.CREATE.{stream}.{name}",
        f"{_CONSUMER_API}.CREATE.{stream}.{name}.>",  # the form with the consumer's filter at its end
        f"{_CONSUMER_API}.INFO.{stream}.{name}",
        f"{_CONSUMER_API}.MSG.NEXT.{stream}.{name}",
        f"$JS.ACK.{stream}.{name}.>",
    ]
