"""Every row of the permission table, asked of the real server: each service can do what it needs and nothing else."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from fixtures_nats import Bus
from nats.aio.client import Client
from nats.errors import Error

from remit_chassis.nkeys import SignKey
from remit_contracts.subjects import SERVICES
from remit_infra.permissions import table

VERBS = {
    "auth": ("describe-subject", "describe-session", "describe-tenant", "resolve", "issue-token", "create-tenant"),
    "policy": ("decide", "info", "redecide"),
    "credential-broker": ("lease", "user-key"),
    "agent-runtime": (),
    "audit": ("check",),
}
SHARED_VERBS = ("health", "metrics", "log-head", "republish")
STREAM_CALLS = ("CREATE", "UPDATE", "DELETE", "PURGE", "INFO", "MSG.GET", "MSG.DELETE", "SNAPSHOT", "PEER.REMOVE")
CONSUMER_CALLS = ("CREATE", "DURABLE.CREATE", "INFO", "MSG.NEXT", "DELETE", "PAUSE", "NAMES", "LIST")
USERS = tuple(table())
NOT_LET_IN = (Error, TimeoutError)  # by an answer, or by silence until the server hangs up

RPC = {f"{service}.{verb}" for service in SERVICES for verb in (*VERBS[service], *SHARED_VERBS)}
EVERYTHING = {
    **{f"rpc {tail}": f"remit.acme.u-1.rpc.{tail}" for tail in RPC},
    **{f"cmd {service}": f"remit.acme.u-1.cmd.{service}.anything" for service in SERVICES},
    **{f"evt {service}": f"remit.acme.u-1.evt.{service}.{'0' * 32}" for service in SERVICES},
    **{f"live {topic}": f"remit.acme.u-1.live.{topic}" for topic in ("directory", "refusal", "run.r-1", "other")},
    "job": "remit.acme.u-1.job.analyst",
    **{
        f"inbox {asker} for {answerer}": f"_INBOX_SVC.{asker}.{answerer}.1"
        for asker, answerer in product((*SERVICES, "installer", "sys", "auth-callout"), SERVICES)
    },
    "inbox of a user": "_INBOX.acme.u-1.s-1.token",
    "inbox of nobody": "_INBOX.token",
    "callout": "$SYS.REQ.USER.AUTH",
    **{
        f"{call} {stream}": f"$JS.API.STREAM.{call}.{stream}"
        for call, stream in product(STREAM_CALLS, ("EVENTS_acme", "RUNS"))
    },
    **{
        f"consumer {call} {stream} {name}": f"$JS.API.CONSUMER.{call}.{stream}.{name}"
        for call, stream, name in product(CONSUMER_CALLS, ("EVENTS_acme", "RUNS"), ("agent-runtime", "audit", "other"))
    },
    **{
        f"consumer filtered {stream} {name}": f"$JS.API.CONSUMER.CREATE.{stream}.{name}.remit.x"
        for stream, name in product(("EVENTS_acme", "RUNS"), ("agent-runtime", "audit", "other"))
    },
    **{
        f"ack {stream} {name}": f"$JS.ACK.{stream}.{name}.1.1.1.1.0"
        for stream, name in product(("EVENTS_acme", "RUNS"), ("agent-runtime", "audit", "other"))
    },
    "stream names": "$JS.API.STREAM.NAMES",
    "stream list": "$JS.API.STREAM.LIST",
    "account info": "$JS.API.INFO",
    "direct get": "$JS.API.DIRECT.GET.EVENTS_acme",
    "micro": "$SRV.PING",
    "kick": "$SYS.REQ.SERVER.N1.KICK",
    "reload": "$SYS.REQ.SERVER.N1.RELOAD",
    "connections": "$SYS.REQ.SERVER.PING.CONNZ",
    "connections of one": "$SYS.REQ.SERVER.N1.CONNZ",
    "connections of the account": "$SYS.REQ.ACCOUNT.APP.CONNZ",
    "servers": "$SYS.REQ.SERVER.PING",
    "client comes": "$SYS.ACCOUNT.APP.CONNECT",
    "client goes": "$SYS.ACCOUNT.APP.DISCONNECT",
    "clients come and go": "$SYS.ACCOUNT.APP.*",
    "client of the callout comes": "$SYS.ACCOUNT.AUTH.CONNECT",
    "connections are counted": "$SYS.ACCOUNT.APP.SERVER.CONNS",
    "variables": "$SYS.REQ.SERVER.PING.VARZ",
    "claims": "$SYS.REQ.CLAIMS.UPDATE",
}
"""Something of every kind that could be said, by a short name."""

RELAY = {"INFO EVENTS_acme", "MSG.GET EVENTS_acme", "stream names"}
ANSWERS = {"inbox of a user", "live refusal"}


def answers_of(answerer: str, *askers: str) -> set[str]:
    """A service answers each asker in the part of the inbox that is for it; the installer has one inbox for all."""
    named = {f"inbox {asker} for {answerer}" for asker in askers}
    return named | {f"inbox installer for {service}" for service in SERVICES}


def durable(stream: str, name: str) -> set[str]:
    calls = ("CREATE", "DURABLE.CREATE", "INFO", "MSG.NEXT")
    named = {f"consumer {call} {stream} {name}" for call in calls}
    return named | {f"consumer filtered {stream} {name}", f"ack {stream} {name}"}


MAY_SAY = {
    "auth": RELAY
    | ANSWERS
    | {"evt auth", "live directory", "rpc credential-broker.user-key"}
    | answers_of("auth", "policy", "credential-broker", "agent-runtime", "audit"),
    "policy": RELAY
    | {"evt policy", "rpc auth.describe-subject", "rpc auth.describe-tenant", "rpc credential-broker.user-key"}
    | answers_of("policy", "agent-runtime", "credential-broker", "audit"),
    "credential-broker": RELAY
    | ANSWERS
    | {"evt credential-broker", "rpc policy.decide", "rpc auth.describe-session"}
    | answers_of("credential-broker", "auth", "policy", "agent-runtime", "audit"),
    "agent-runtime": RELAY
    | ANSWERS
    | {"evt agent-runtime", "live run.r-1", "job", "INFO RUNS", "MSG.GET RUNS"}
    | {
        "rpc policy.decide",
        "rpc auth.describe-session",
        "rpc credential-broker.lease",
        "rpc credential-broker.user-key",
    }
    | answers_of("agent-runtime", "audit")
    | durable("RUNS", "agent-runtime"),
    "audit": RELAY
    | ANSWERS
    | {"evt audit", "stream list"}
    | {"rpc policy.decide", "rpc auth.describe-session", "rpc auth.resolve", "rpc credential-broker.user-key"}
    | {f"rpc {service}.{verb}" for service in SERVICES for verb in ("log-head", "republish")}
    | answers_of("audit", "audit")
    | durable("EVENTS_acme", "audit"),
    "auth-callout": set(),
    "installer": {
        f"{call} {stream}" for call in ("CREATE", "UPDATE", "DELETE", "INFO") for stream in ("EVENTS_acme", "RUNS")
    }
    | {"stream names", "stream list", "rpc audit.check", "rpc policy.info", "rpc policy.redecide"}
    | {f"rpc auth.{verb}" for verb in (*VERBS["auth"], *SHARED_VERBS)}
    | {f"rpc {service}.{verb}" for service in SERVICES for verb in ("health", "metrics")},
    "sys": {"kick", "connections", "connections of one", "servers"},
}


def inbox_of(name: str) -> set[str]:
    return {f"inbox {name} for {answerer}" for answerer in SERVICES}


MAY_HEAR = {
    **{service: {f"cmd {service}"} | inbox_of(service) for service in SERVICES if service != "policy"},
    "policy": {"live directory"} | inbox_of("policy"),
    "auth-callout": {"callout"},
    "installer": inbox_of("installer"),
    "sys": {"client comes", "client goes", "clients come and go"} | inbox_of("sys"),
}


async def refused(bus: Bus, nc: Client) -> set[str]:
    """Names of what the server refused; nats-py hands its messages over in lower case."""
    by_subject = {subject.lower(): name for name, subject in EVERYTHING.items()}
    found = {re.search(r'"(.+)"', violation) for violation in await bus.refused(nc)}
    return {by_subject.get(match[1], match[1]) for match in found if match}


@pytest.mark.parametrize("user", USERS)
async def test_each_user_may_say_exactly_what_its_row_says(shared_nats_bus: Bus, user: str) -> None:
    async with shared_nats_bus.client(user) as nc:
        for subject in EVERYTHING.values():
            await nc.publish(subject, b"{}")
        assert EVERYTHING.keys() - await refused(shared_nats_bus, nc) == MAY_SAY[user]


@pytest.mark.parametrize("user", USERS)
async def test_each_user_may_hear_exactly_what_its_row_says(shared_nats_bus: Bus, user: str) -> None:
    own_rpc = {f"rpc {tail}" for tail in RPC if tail.startswith(f"{user}.")}
    async with shared_nats_bus.client(user) as nc:
        for subject in EVERYTHING.values():
            await nc.subscribe(subject)
        assert EVERYTHING.keys() - await refused(shared_nats_bus, nc) == MAY_HEAR[user] | own_rpc


WIDE = (">", "remit.>", "remit.*.*.cmd.>", "remit.*.*.rpc.>", "remit.*.*.evt.>", "remit.*.*.live.>", "_INBOX.>")


@pytest.mark.parametrize("user", USERS)
async def test_nobody_hears_more_by_asking_with_wildcards(shared_nats_bus: Bus, user: str) -> None:
    wide = (*WIDE, "_INBOX_SVC.>", "_INBOX_SVC.*.rq.*", "$JS.>", "$SYS.>", "*.*.*.*.*.*")
    async with shared_nats_bus.client(user) as nc:
        for subject in wide:
            await nc.subscribe(subject)
            await nc.subscribe(subject, queue=user)
        found = await shared_nats_bus.refused(nc)
    assert len(found) == 2 * len(wide)


async def test_every_user_of_the_table_has_a_row_in_this_test() -> None:
    assert set(USERS) == MAY_SAY.keys() == MAY_HEAR.keys()


async def test_another_key_gets_nobody_in(shared_nats_bus: Bus, tmp_path: Path) -> None:
    with pytest.raises(NOT_LET_IN):
        await shared_nats_bus.connect(nkeys_seed_str=SignKey.create("user").seed(), connect_timeout=5)


async def test_nobody_gets_in_while_the_callout_is_down(shared_nats_bus: Bus) -> None:
    for credential in ({}, {"token": "anything"}, {"user": "auth", "password": "auth"}):
        with pytest.raises(NOT_LET_IN):
            await shared_nats_bus.connect(connect_timeout=5, **credential)


async def test_a_payload_over_a_megabyte_is_refused(shared_nats_bus: Bus) -> None:
    async with shared_nats_bus.client("policy") as nc:
        assert nc.max_payload == 1024 * 1024


async def test_the_server_listens_on_one_port_of_loopback(shared_nats_bus: Bus) -> None:
    assert listening(shared_nats_bus.pid) == {("127.0.0.1", shared_nats_bus.port)}


def listening(pid: int) -> set[tuple[str, int]]:
    """Addresses on which a process listens, from /proc."""
    sockets = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table_name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table_name}").read_text().splitlines()[1:]:
            local, state, inode = line.split()[1], line.split()[3], line.split()[9]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                address, port = local.split(":")
                octets = [str(byte) for byte in reversed(bytes.fromhex(address))] if table_name == "tcp" else [address]
                found.add((".".join(octets), int(port, 16)))
    return found
