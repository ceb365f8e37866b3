"""The fixed points of the command line, on a running platform: names, shapes, exit codes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures_platform import USUAL_UMASK, running_platform

from remit_contracts.errors import Unavailable

QUESTION = "Which planes flew the longest flights?"


def test_whoami_gives_prefixes_that_are_ready_to_use(platform):
    token = platform.token("acme/analyst")
    told = platform.cli("whoami", "--token", token, "--output", "json")
    assert told.code == 0, told.err
    who = told.json
    assert {"tenant", "user", "session", "roles", "inbox_prefix", "command_prefix"} <= who.keys()
    assert who["tenant"] == "acme"
    assert who["roles"] == ["analyst"]
    assert who["command_prefix"] == f"remit.acme.{who['user']}.cmd"
    assert who["inbox_prefix"] == f"_INBOX.acme.{who['user']}.{who['session']}"
    assert who["user"].startswith("u-")


def test_endpoints_name_the_bus_and_every_process(platform):
    assert platform.endpoints["nats"].startswith("nats://127.0.0.1:")
    assert {"nats", "auth", "policy", "credential-broker", "agent-runtime", "audit"} <= platform.endpoints[
        "pids"
    ].keys()


async def test_a_verb_that_nobody_answers_is_a_coded_refusal(platform):
    async with platform.client("acme/analyst") as client:
        with pytest.raises(Unavailable, match=r"nobody answers .*\.cmd\.auth\.no-such-verb") as refused:
            await client.command("auth", "no-such-verb")
    assert refused.value.refusal_code == "unavailable"


def test_an_analysts_run_completes_and_its_answer_is_on_standard_output(platform):
    ran = platform.cli("run", "analyst", QUESTION, "--as", "acme/analyst", "--output", "json")
    assert ran.code == 0, ran.out + ran.err
    assert ran.json["status"] == "completed"
    assert ran.json["answer"]
    rows = platform.cli("runs", "list", "--as", "acme/analyst", "--output", "json").json
    assert {"run_id": ran.json["run_id"], "status": "completed"}.items() <= rows[0].items()
    assert {name: ran.json[name] for name in rows[0]} == rows[0]


def test_a_readers_run_of_the_same_agent_is_denied_with_exit_code_3_reason_and_decision(platform):
    ran = platform.cli("run", "analyst", QUESTION, "--as", "acme/reader", "--output", "json")
    assert ran.code == 3, ran.out + ran.err
    assert ran.json["error"]["code"].startswith("policy.")
    assert ran.json["error"]["reason"]
    assert ran.json["error"]["decision_id"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "no-such-agent", "hi", "--as", "acme/analyst"], 4),
        (["run", "analyst", "hi", "--as", "acme/nobody"], 4),
        (["run", "analyst", "hi", "--as", "nowhere/analyst"], 4),
        (["run", "analyst", "hi", "--as", "Acme/analyst"], 2),
        (["run", "analyst", "hi"], 7),
        (["run", "analyst"], 2),
        (["no-such-command"], 2),
        (["runs", "show", "f" * 32, "--as", "acme/analyst"], 4),
        (["runs", "show", "not-a-run", "--as", "acme/analyst"], 2),
        (["run", "helpdesk", "hi", "--timeout", "0.00001", "--as", "acme/reader"], 5),
        (["whoami", "--token", "garbage"], 7),
        (["token", "acme/analyst", "--ttl", "0"], 2),
        (["trail", "show", "acme/analyst", "--limit", "0"], 2),
        (["trail", "show", "acme/analyst", "--limit", "-3"], 2),
        (
            ["trail", "verify", "globex/analyst", "--as", "acme/analyst"],
            4,
        ),  # another tenant's, not one's own by that name
        (["trail", "show", "nosuch/analyst", "--as", "acme/analyst"], 4),
        (["trail", "show", "acme/analyst", "--as", "acme/reader"], 4),  # absent and forbidden answer alike
    ],
)
def test_what_cannot_be_done_says_why_and_exits_with_its_code(platform, arguments, code):
    told = platform.cli(*arguments, "--output", "json")
    assert told.code == code, told.out + told.err
    assert "Traceback" not in told.out + told.err
    assert json.loads(told.out)["error"]["reason"]


def test_a_trail_is_shown_verified_and_replayed(platform):
    shown = platform.cli("trail", "show", "acme/analyst", "--output", "json")
    assert shown.code == 0, shown.err
    assert shown.json["entries"]
    assert [entry["index"] for entry in shown.json["entries"]] == sorted(
        entry["index"] for entry in shown.json["entries"]
    )
    assert platform.cli("trail", "verify", "acme/analyst", "--output", "json").json["ok"] is True
    replayed = platform.cli("trail", "replay", "acme/analyst")
    assert replayed.code == 0
    assert [json.loads(line)["index"] for line in replayed.out.splitlines()][: len(shown.json["entries"])] == [
        entry["index"] for entry in shown.json["entries"]
    ]


def test_a_trail_is_exported_to_standard_output_as_json_lines(platform):
    exported = platform.cli("trail", "export", "acme/analyst")
    assert (exported.code, exported.err) == (0, "")
    indexes = [json.loads(line)["index"] for line in exported.out.splitlines()]
    assert len(indexes) > 1
    assert indexes == sorted(indexes)


def test_the_token_of_the_environment_asks_for_a_trail_unless_somebody_is_named(platform):
    def ask(*arguments):
        return platform.cli("trail", *arguments, "--output", "json")

    platform.environment["REMIT_TOKEN"] = platform.token("acme/reader")
    try:
        for of_another in (["show"], ["verify"], ["export"], ["replay"]):
            assert ask(*of_another, "acme/analyst").code == 4, of_another
        assert ask("show", "acme/reader").code == 0
        assert ask("show", "acme/analyst", "--as", "acme/analyst").code == 0
    finally:
        del platform.environment["REMIT_TOKEN"]


def test_a_list_of_runs_says_that_there_are_more(platform):
    for _ in range(2):
        platform.cli("run", "helpdesk", "what is a permit?", "--as", "globex/analyst")
    some = platform.cli("runs", "list", "--limit", "1", "--as", "globex/analyst", "--output", "json")
    assert (some.code, len(some.json)) == (0, 1)
    assert "there are older runs" in some.err
    every = platform.cli("runs", "list", "--as", "globex/analyst", "--output", "json")
    assert (len(every.json) >= 2, every.err) == (True, "")


def test_a_user_whose_roles_are_not_all_defined_is_not_registered(platform):
    asked = ["users", "register", "acme/newcomer", "--role", "reader", "--output", "json"]
    told = platform.cli(*asked, "--role", "nosuch")
    assert (told.code, told.json["error"]["code"]) == (4, "absent.role")
    registered = platform.cli(*asked)
    assert (registered.code, registered.json["roles"]) == (0, ["reader"])
    removed = platform.cli("users", "remove", "acme/newcomer", "operator", "--output", "json")
    assert removed.code == 4
    assert removed.json["error"]["reason"] == "the user does not hold the role operator; held: reader"


def test_every_copy_and_proof_is_checked(platform):
    checked = platform.cli("audit", "check", "--output", "json")
    assert checked.code == 0, checked.out + checked.err
    assert checked.json["ok"] is True
    assert {tenant["tenant"] for tenant in checked.json["tenants"]} >= {"acme", "globex"}


def test_a_disabled_user_gets_no_token_and_is_enabled_again(platform):
    before = platform.token("acme/operator")
    told = platform.cli("users", "disable", "acme/operator", "--output", "json")
    assert (told.code, told.json["active"], told.json["connections_left"]) == (0, False, 0)
    assert told.json["sessions_ended"] >= 1
    assert platform.cli("token", "acme/operator", "--output", "json").code == 7
    assert platform.cli("users", "enable", "acme/operator").code == 0
    assert platform.cli("whoami", "--token", before).code == 7
    assert platform.cli("whoami", "--token", platform.token("acme/operator")).code == 0


def test_roles_are_drawn_as_a_tree(platform):
    tree = platform.cli("roles", "tree", "acme", "--output", "json").json
    assert set(tree["roles"]) == {"reader", "analyst", "operator", "administrator"}
    assert set(tree["closure"]["administrator"]) >= {"reader", "analyst", "operator"}


def test_without_a_tenant_the_roles_of_all_are_drawn(platform):
    every = platform.cli("roles", "tree", "--output", "json")
    assert every.code == 0, every.err
    assert every.json == {
        "tenants": [platform.cli("roles", "tree", name, "--output", "json").json for name in ("acme", "globex")]
    }
    drawn = platform.cli("roles", "tree").out
    assert [line for line in drawn.splitlines() if line in ("acme", "globex")] == ["acme", "globex"]


def test_a_connection_that_is_added_without_a_host_has_those_of_the_tools_that_name_it(platform, tmp_path):
    (tmp_path / "secret").write_text("sk-1")
    given = ("--kind", "bearer", "--as", "acme/analyst", "--secret-file", str(tmp_path / "secret"))
    added = platform.cli("connections", "add", "weather-desk", *given, "--output", "json")
    assert (added.code, added.err) == (0, "")
    assert added.json["hosts"] == ["127.0.0.1:8765"]
    nowhere = platform.cli("connections", "add", "nobodys", *given, "--output", "json")
    assert (nowhere.code, nowhere.json["hosts"], nowhere.json["status"]) == (0, [], "active")
    assert "is lent to nobody" in " ".join(nowhere.err.split())
    tested = platform.cli("connections", "test", "nobodys", "--as", "acme/analyst", "--output", "json")
    assert (tested.code, tested.json["error"]["code"]) == (1, "conflict.connection_without_host")
    refused = platform.cli("connections", "test", "weather-desk", "--as", "acme/analyst", "--output", "json")
    assert (refused.code, refused.json["ok"]) == (1, False)  # nobody listens at that port
    (tmp_path / "secret").write_bytes(b"s" * 800_000)
    large = platform.cli("connections", "add", "large", *given, "--output", "json")
    assert (large.code, large.json["error"]["code"]) == (2, "request.too_large")
    assert "holds 800000 bytes and a secret may have 4096" in large.json["error"]["reason"]
    (tmp_path / "secret").write_text("sk-1")
    pinned = platform.cli("connections", "add", "pinned", *given, "--host", "desk.example:443", "--output", "json")
    assert pinned.json["hosts"] == ["desk.example:443"]


def test_a_second_up_on_the_same_home_says_so_and_exits_1(platform):
    second = platform.cli("up")
    assert second.code == 1
    assert "running" in second.err


def test_status_and_doctor_find_everything_well(platform):
    status = platform.cli("status", "--output", "json")
    assert status.code == 0, status.out
    assert status.json["ready"] is True
    assert platform.cli("doctor", "--output", "json").code == 0


def test_a_runs_events_are_replayed_in_order_from_its_acceptance_to_its_end(platform):
    run_id = platform.cli("run", "helpdesk", "what is a permit?", "--as", "acme/reader", "--output", "json").json[
        "run_id"
    ]
    for _ in range(50):  # the ledger follows the store by milliseconds
        replayed = platform.cli("runs", "replay", run_id, "--as", "acme/reader")
        events = [json.loads(line)["event"] for line in replayed.out.splitlines()]
        if events and events[-1] == "runtime.Run.Completed":
            break
    assert events[0] == "runtime.Run.Accepted"
    assert events[-1] == "runtime.Run.Completed"
    assert platform.cli("runs", "replay", "f" * 32, "--as", "acme/reader").code == 4


def test_bidi_and_control_characters_of_a_prompt_never_reach_the_terminal(platform):
    prompt = "a \u202e b \u009b c \x7f d"
    ran = platform.cli("run", "helpdesk", prompt, "--as", "globex/analyst", "--output", "json")
    shown = ran.out + platform.cli("trail", "replay", "globex/analyst").out
    shown += platform.cli("runs", "show", ran.json["run_id"], "--as", "globex/analyst").out
    assert not any(character in shown for character in "\u202e\u009b\x7f\x1b")


@pytest.mark.parametrize(
    ("arguments", "home", "code"),
    [
        (["up"], "/proc/remit-home", 1),
        (["trail", "export", "acme/analyst", "--to", "/nonexistent/x.jsonl"], None, 1),
    ],
)
def test_a_fault_of_the_machine_is_one_line_and_never_a_stack_trace(platform, tmp_path, arguments, home, code):
    place = platform.home if home is None else tmp_path / home  # an absolute path stays as it is
    done = subprocess.run(
        [sys.executable, "-m", "remit.cli", *arguments, "--home", str(place), "--output", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert json.loads(done.stdout)["error"]["reason"]


def test_a_stopped_homes_trail_is_shown_verified_and_exported_offline(tmp_path):
    with running_platform(tmp_path, "--demo") as started:
        assert started.cli("run", "helpdesk", "what is a lease?", "--as", "acme/reader").code == 0
        online = started.cli("trail", "show", "acme/reader", "--output", "json").json["entries"]
    offline = started.cli("trail", "show", "acme/reader", "--offline", "--output", "json")
    assert offline.code == 0, offline.err
    assert offline.json["entries"][: len(online)] == online
    assert started.cli("trail", "verify", "acme/reader", "--offline", "--output", "json").json["ok"] is True
    exported = started.cli("trail", "export", "acme/reader", "--offline", "--to", str(tmp_path / "t.jsonl"))
    assert exported.code == 0, exported.err
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == len(offline.json["entries"])
    assert (tmp_path / "t.jsonl").stat().st_mode & 0o777 == 0o666 & ~USUAL_UMASK
    assert started.cli("audit", "check", "--offline", "--output", "json").json["ok"] is True
    told = " ".join(started.cli("audit", "check", "--offline").out.split())
    assert "checked: ledger; stores of agent-runtime, audit, auth, credential-broker, policy; permits;" in told
    assert "; not checked: stream" in told
    for path in [*started.home.glob("ledger/acme.*"), *started.home.glob("store/*/acme.*")]:
        path.unlink()
    missed = started.cli("audit", "check", "--offline", "--output", "json")
    assert missed.code == 6, missed.out
    assert {tenant["tenant"]: bool(tenant["faults"]) for tenant in missed.json["tenants"]}["acme"]
    command = [sys.executable, "-m", "remit.cli", "audit", "check", "--offline", "--home", str(started.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as unread:
        unread.stdout.close()
        assert "Traceback" not in unread.stderr.read()
    assert unread.returncode == 6


def test_after_the_supervisor_was_killed_commands_say_that_nothing_runs_and_the_doctor_says_why(tmp_path):
    with running_platform(tmp_path, "--demo") as started:
        pids = started.endpoints["pids"]
        started.process.kill()
        started.process.wait()
        deadline = time.monotonic() + 20
        while any(is_alive(pid) for pid in pids.values()) and time.monotonic() < deadline:
            time.sleep(0.05)
    for asked in (["status"], ["whoami", "--as", "acme/analyst"], ["trail", "show", "acme/analyst"]):
        told = started.cli(*asked)
        assert told.code == 5, told.err
        assert told.err.startswith("unavailable: no bus at ")
        assert "Traceback" not in told.err
    doctor = started.cli("doctor", "--output", "json")
    assert (doctor.code, doctor.err) == (1, "")
    found = {finding["check"]: finding["found"] for finding in doctor.json if not finding["ok"]}
    assert found.keys() == {"platform"}
    assert "left of a platform that was killed" in found["platform"]


def is_alive(pid):
    """Whether that process runs: one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
