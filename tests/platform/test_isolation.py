"""Attacks on a running platform, as a user who is signed in and means harm. Each must be refused, and say so."""

import asyncio
import stat
from contextlib import suppress

import orjson
import pytest

from remit.violations import PermissionViolation
from remit_contracts import subjects
from remit_contracts.catalogue import OPERATIONS
from remit_contracts.errors import MalformedCommand, Refusal, Unavailable

COMMANDS = sorted({(operation.service, operation.verb) for operation in OPERATIONS if operation.kind == "cmd"})


async def test_no_subject_of_another_user_can_be_said_or_heard(platform):
    async with platform.client("acme/analyst") as alice, platform.client("globex/analyst") as mallory:
        victim = alice.session.caller
        heard = [
            f"remit.{victim.tenant}.{victim.user}.>",
            f"remit.{victim.tenant}.{victim.user}.live.>",
            f"remit.{victim.tenant}.*.live.>",
            "remit.>",
            ">",
            "*.*.*.live.>",
            f"{subjects.user_inbox(victim)}.>",
            f"_INBOX.{victim.tenant}.>",
            "_INBOX.>",
            "_INBOX_SVC.>",
            f"remit.*.*.evt.{subjects.SERVICES[0]}.*",
            "remit.*.*.job.*",
            "$SYS.>",
            "$JS.EVENT.>",
            "$SRV.>",
        ]
        said = [
            subjects.command(victim.tenant, victim.user, "audit", "show-trail"),
            subjects.rpc(victim.tenant, victim.user, "policy", "decide"),
            subjects.rpc("globex", mallory.session.caller.user, "policy", "decide"),
            subjects.rpc("globex", mallory.session.caller.user, "credential-broker", "lease"),
            subjects.event("globex", mallory.session.caller.user, "audit", "a" * 32),
            subjects.live("globex", mallory.session.caller.user, "run", "x"),
            subjects.job("globex", mallory.session.caller.user, "analyst"),
            "$JS.API.STREAM.INFO.EVENTS_acme",
            "$JS.API.STREAM.DELETE.EVENTS_acme",
            "$JS.API.DIRECT.GET.EVENTS_acme",
            "$JS.API.CONSUMER.CREATE.EVENTS_acme",
            "$KV.x.y",
            "$SYS.REQ.USER.INFO",
            f"{subjects.user_inbox(victim)}.x",
        ]
        for subject in heard:
            with pytest.raises(PermissionViolation):
                await mallory.subscribe(subject)
        for subject in said:
            with pytest.raises(PermissionViolation):
                await mallory.publish(subject, b"{}")


async def test_a_request_with_a_victims_inbox_as_reply_reaches_nobody_and_is_refused_to_its_sender(platform):
    async with platform.client("acme/analyst") as alice, platform.client("acme/reader") as mallory:
        inbox = f"{subjects.user_inbox(alice.session.caller)}.x"
        victim = await alice.subscribe(inbox)
        me = mallory.session.caller
        told = await mallory.subscribe(subjects.live(me.tenant, me.user, "refusal"))
        for service, verb in COMMANDS:
            await mallory.publish(subjects.command(me.tenant, me.user, service, verb), b"{}", reply=inbox)
            refusal = orjson.loads((await told.next_msg(5)).data)
            assert refusal["error"]["code"] == "request.foreign_reply", (service, verb)
        assert victim.pending_msgs == 0


@pytest.mark.parametrize(("service", "verb"), COMMANDS)
async def test_every_command_refuses_what_is_not_its_own_shape(platform, service, verb):
    async with platform.client("acme/reader") as client:
        caller = client.session.caller
        subject = subjects.command(caller.tenant, caller.user, service, verb)
        for payload in (b"{", b"[]", b"\xff", b'"x"', b'{"user": "u-other", "tenant": "globex"}', b'{"a":' * 2000):
            with pytest.raises(MalformedCommand) as refused:
                await client.request(subject, payload)
            assert refused.value.refusal_code == "request.malformed"
            assert "Traceback" not in refused.value.reason
        with pytest.raises(Refusal) as refused:
            await client.request(subject, b'{"x": "' + b"y" * 300_000 + b'"}')
        assert refused.value.refusal_code in ("request.too_large", "request.malformed")


@pytest.mark.parametrize(
    "subject_tail",
    ["cmd.audit.*", "cmd.audit.>", "cmd..show-trail", "cmd.audit.show-trail.x", "cmd.audit.Show", "cmd.audit"],
)
async def test_an_odd_subject_within_ones_own_prefix_is_never_answered_as_a_command(platform, subject_tail):
    async with platform.client("acme/reader", timeout_seconds=2) as client:
        caller = client.session.caller
        with pytest.raises((Refusal, Unavailable)) as refused:
            await client.request(f"remit.{caller.tenant}.{caller.user}.{subject_tail}", b"{}")
        assert refused.value.refusal_code in ("unavailable", "request.malformed_subject", "policy.bus_permission")


async def test_another_tenants_run_trail_and_connection_are_as_absent_as_what_never_was(platform):
    async with platform.client("acme/analyst") as alice, platform.client("globex/administrator") as mallory:
        run = await alice.run("analyst", "how many flights")
        answers = []
        for run_id in (run["run_id"], "0" * 32):
            with pytest.raises(Refusal) as refused:
                await mallory.show(run_id)
            answers.append((refused.value.refusal_code, refused.value.reason.replace(run_id, "")))
        assert answers[0] == answers[1]
        for of in ("analyst", alice.session.caller.user, "acme/analyst", "nobody"):
            try:
                page = await mallory.trail(of=of)
            except Refusal as refusal:
                assert refusal.exit_code in (2, 4), of
            else:  # "analyst" is a handle of globex as well
                assert {entry["user"] for entry in page["entries"]} != {alice.session.caller.user}
                assert run["run_id"] not in str(page)


async def test_one_users_trail_holds_nothing_of_another(platform):
    canary = "canary-5d1f"
    async with platform.client("acme/administrator") as alice, platform.client("acme/reader") as bob:
        await alice.run("helpdesk", f"what about {canary}?")
        me = bob.session.caller.user
        async with asyncio.timeout(20):
            while True:
                page = await bob.trail(limit=200)
                if page["entries"]:
                    break
                await asyncio.sleep(0.1)
        assert {entry["user"] for entry in page["entries"]} == {me}
        assert canary not in str(page)


async def test_the_client_names_the_session_and_not_the_payload(platform):
    async with platform.client("acme/reader") as client:
        who = await client.whoami()
    assert who["session"] == client.session.caller.session
    assert who["user"] == client.session.caller.user


async def test_secrets_of_the_home_are_in_no_log_and_in_no_childs_environment_or_command_line(platform):
    secrets = [path.read_bytes().strip() for path in (platform.home / "secrets").rglob("*") if path.is_file()]
    assert len(secrets) > 10
    told = b"".join(path.read_bytes() for path in (platform.home / "logs").iterdir())
    for pid in platform.endpoints["pids"].values():
        for name in ("environ", "cmdline"):
            with open(f"/proc/{pid}/{name}", "rb") as file:
                told += file.read()
    for secret in secrets:
        assert secret not in told


def test_no_file_of_a_home_can_be_read_by_others_on_the_machine(platform):
    assert platform.cli("run", "helpdesk", "what is a lease?", "--as", "acme/reader").code == 0
    modes = {}
    for path in platform.home.rglob("*"):
        with suppress(FileNotFoundError):  # databases and atomic writes come and go
            modes[path.relative_to(platform.home).as_posix()] = path.lstat().st_mode
    files = {name for name, mode in modes.items() if stat.S_ISREG(mode)}
    made_by = ("logs/nats.log", "mongo/", "nats/js/", "ledger/", "store/agent-runtime/", "vault/", "documents/acme/")
    assert all(any(name.startswith(part) for name in files) for part in made_by)
    assert {name for name in files if modes[name] & 0o077} == set()
