"""Every subject of the bus: the one place that builds and parses them.

    remit.{tenant}.{user}.cmd.{service}.{verb}       a user's client asks a service
    remit.{tenant}.{user}.rpc.{service}.{verb}       a service asks a service, for that user
    remit.{tenant}.{user}.job.{agent}                a run waits in the work-queue stream RUNS
    remit.{tenant}.{user}.evt.{service}.{aggregate}  a fact, in the tenant's stream EVENTS_{tenant}
    remit.{tenant}.{user}.live.{topic...}            progress, never stored

The bus server enforces who may publish and subscribe where, so tenant and user in a subject are proof.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from remit_contracts.errors import ForeignReply, MalformedSubject
from remit_contracts.identity import Caller, is_label, label

ROOT: Final = "remit"
SERVICES: Final = ("auth", "policy", "credential-broker", "agent-runtime", "audit")
RUNS_STREAM: Final = "RUNS"
EVENTS_STREAMS: Final = "EVENTS"
"""Each tenant's event stream is called that, an underscore and the tenant."""
RUNS_SUBJECTS: Final = "remit.*.*.job.*"
USER_INBOX: Final = "_INBOX"
SERVICE_INBOX: Final = "_INBOX_SVC"
AUTH_CALLOUT: Final = "$SYS.REQ.USER.AUTH"
USERS_ACCOUNT: Final = "APP"
"""The bus account of services and users."""
CLIENT_CONNECTED: Final = f"$SYS.ACCOUNT.{USERS_ACCOUNT}.CONNECT"
CLIENT_DISCONNECTED: Final = f"$SYS.ACCOUNT.{USERS_ACCOUNT}.DISCONNECT"
CLIENTS_COME_AND_GO: Final = f"$SYS.ACCOUNT.{USERS_ACCOUNT}.*"
"""Both of these, and nothing else that a bus server says (nats-server 2.15.1)."""
BUS_SERVERS: Final = "$SYS.REQ.SERVER.PING"
"""Every bus server answers with its id and the number of all."""

_TOKEN = re.compile(r"[!-)+-=?-~]+", re.ASCII)  # printable ASCII without space, '*' and '>'
_REPLY_TOKEN = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Request(NamedTuple):
    """A parsed `cmd` or `rpc` subject."""

    tenant: str
    user: str
    kind: str
    service: str
    verb: str


def request(tenant: str, user: str, kind: str, service: str, verb: str) -> str:
    """A `cmd` or `rpc` subject."""
    return ".".join((ROOT, label(tenant, kind="tenant"), label(user, kind="user"), kind, label(service), label(verb)))


def command(tenant: str, user: str, service: str, verb: str) -> str:
    """`remit.{tenant}.{user}.cmd.{service}.{verb}`."""
    return request(tenant, user, "cmd", service, verb)


def rpc(tenant: str, user: str, service: str, verb: str) -> str:
    """`remit.{tenant}.{user}.rpc.{service}.{verb}`."""
    return request(tenant, user, "rpc", service, verb)


def command_prefix(tenant: str, user: str) -> str:
    """`remit.{tenant}.{user}.cmd`, ready to use, without a trailing dot."""
    return f"{ROOT}.{label(tenant, kind='tenant')}.{label(user, kind='user')}.cmd"


def any_request(kind: str, service: str, verb: str) -> str:
    """What a service subscribes to, for every tenant and user."""
    return f"{ROOT}.*.*.{kind}.{service}.{verb}"


def parse_request(subject: str) -> Request:
    """Take a concrete `cmd` or `rpc` subject apart; raises MalformedSubject for every other text."""
    tokens = subject.split(".")
    if len(tokens) != 6 or tokens[0] != ROOT or tokens[3] not in ("cmd", "rpc"):
        raise MalformedSubject(f"{subject!r:.120} is no request subject: remit.TENANT.USER.cmd.SERVICE.VERB")
    if not all(map(is_label, tokens)):
        raise MalformedSubject(f"{subject!r:.120} has a token that is no identifier")
    return Request(tokens[1], tokens[2], tokens[3], tokens[4], tokens[5])


def list_connections(server: str) -> str:
    """Asks one bus server, or `*`, for its connections."""
    return f"$SYS.REQ.SERVER.{server}.CONNZ"


def kick(server: str) -> str:
    """Asks one bus server, or `*`, to cut a connection off."""
    return f"$SYS.REQ.SERVER.{server}.KICK"


def is_concrete(subject: str) -> bool:
    """No wildcard, empty, control or non-ASCII token."""
    return all(_TOKEN.fullmatch(token) for token in subject.split("."))


def is_filter(subject: str) -> bool:
    """What may be listened on: concrete tokens, `*`, and `>` as the last one."""
    *before, last = subject.split(".")
    return all(t == "*" or _TOKEN.fullmatch(t) for t in (*before, "*" if last == ">" else last))


def job(tenant: str, user: str, agent: str) -> str:
    """`remit.{tenant}.{user}.job.{agent}`."""
    return f"{ROOT}.{label(tenant, kind='tenant')}.{label(user, kind='user')}.job.{label(agent, kind='agent')}"


def event(tenant: str, user: str, service: str, aggregate: str) -> str:
    """`remit.{tenant}.{user}.evt.{service}.{aggregate}`; `aggregate` is the aggregate's id in 32 hex digits."""
    return ".".join(
        (ROOT, label(tenant, kind="tenant"), label(user, kind="user"), "evt", label(service), label(aggregate))
    )


def events_stream(tenant: str) -> str:
    """Name of the tenant's event stream."""
    return f"{EVENTS_STREAMS}_{label(tenant, kind='tenant')}"


def tenants_of_streams(streams: Iterable[str]) -> list[str]:
    """The tenants whose event streams are among these names."""
    prefix = f"{EVENTS_STREAMS}_"
    found = (name.removeprefix(prefix) for name in streams if name.startswith(prefix))
    return [tenant for tenant in found if is_label(tenant)]


def events_of_tenant(tenant: str) -> str:
    """What the tenant's event stream binds."""
    return f"{ROOT}.{label(tenant, kind='tenant')}.*.evt.>"


def events_of_service(tenant: str, service: str) -> str:
    """One service's events in a tenant's stream, as a filter."""
    return f"{ROOT}.{label(tenant, kind='tenant')}.*.evt.{label(service)}.*"


def any_event(service: str) -> str:
    """What a service's relay publishes to, for every tenant and user."""
    return f"{ROOT}.*.*.evt.{label(service)}.*"


def any_live(*topic: str) -> str:
    """Progress of one kind, for every tenant and user; a topic may be `*`."""
    return ".".join((ROOT, "*", "*", "live", *(t if t == "*" else label(t, kind="topic") for t in topic)))


def live(tenant: str, user: str, *topic: str) -> str:
    """`remit.{tenant}.{user}.live.{topic...}`."""
    return ".".join(
        (ROOT, label(tenant, kind="tenant"), label(user, kind="user"), "live", *(label(t, kind="topic") for t in topic))
    )


def live_run(tenant: str, user: str, run_id: str) -> str:
    """Progress of one run: `remit.{tenant}.{user}.live.run.{run_id}`."""
    return live(tenant, user, "run", run_id)


def user_inbox(caller: Caller) -> str:
    """`_INBOX.{tenant}.{user}.{session}`, without a trailing dot."""
    return ".".join(
        (
            USER_INBOX,
            label(caller.tenant, kind="tenant"),
            label(caller.user, kind="user"),
            label(caller.session, kind="session"),
        )
    )


def service_inbox(service: str) -> str:
    """`_INBOX_SVC.{service}`, without a trailing dot."""
    return f"{SERVICE_INBOX}.{label(service)}"


def client_may_publish(caller: Caller) -> list[str]:
    """All that a user's client may say: its own commands, and discovery of its own agents."""
    return [f"{command_prefix(caller.tenant, caller.user)}.>", "$SRV.INFO.agents", "$SRV.PING.agents.*"]


def client_may_subscribe(caller: Caller) -> list[str]:
    """All that a user's client may hear: its live progress, its agents' heartbeats, and its session's own inbox."""
    tenant, user = label(caller.tenant, kind="tenant"), label(caller.user, kind="user")
    return [f"{ROOT}.{tenant}.{user}.live.>", f"agents.hb.*.{tenant}_{user}.*", f"{user_inbox(caller)}.>"]


def session_of_reply(reply: str, tenant: str, user: str) -> str:
    """The session named by a client's reply subject; raises ForeignReply unless it lies, token by token, under
    `_INBOX.{tenant}.{user}.{session}.` (a prefix comparison would let user `a` aim at user `ab`)."""
    tokens = reply.split(".")
    if (
        len(tokens) < 5
        or tokens[0] != USER_INBOX
        or tokens[1] != tenant
        or tokens[2] != user
        or not is_label(tokens[3])
        or not all(_REPLY_TOKEN.fullmatch(token) for token in tokens[4:])
    ):
        raise ForeignReply("the reply subject lies outside your own inbox: use what `whoami` gives as inbox_prefix")
    return tokens[3]


def is_service_reply(reply: str) -> bool:
    """Whether a reply subject lies under some service's inbox."""
    tokens = reply.split(".")
    return (
        len(tokens) >= 3
        and tokens[0] == SERVICE_INBOX
        and is_label(tokens[1])
        and all(_REPLY_TOKEN.fullmatch(token) for token in tokens[2:])
    )
