"""Checks on the files of a stopped home: whatever is edited is found and named, and nothing crashes."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from unit.audit.recorded_home import ANALYST, READER, Recorder, accepted, authorize, complete, recorded_home

from remit_audit.offline import audit_check, trail_show, trail_verify
from remit_contracts.errors import Absent
from remit_infra.home import Home

EDITS = 400


def store(home: Path, service: str = "agent-runtime", tenant: str = "acme") -> Path:
    return home / "store" / service / f"{tenant}.sqlite"


def faults(home: Path) -> list[tuple[str, str, str, int | None, str]]:
    """(tenant, copy, service, notification id, code) of every fault."""
    report = audit_check(home)
    found = [
        (tenant["tenant"], fault["copy"], fault["service"], fault["notification_id"], fault["code"])
        for tenant in report["tenants"]
        for fault in tenant["faults"]
    ]
    assert report["ok"] == (not found)
    orjson.dumps(report)  # it is answered as JSON, whatever an edited file says
    return found


def flip(path: Path, place: int, mask: int = 1) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= mask
    path.write_bytes(raw)


def contents(home: Path) -> str:
    """A digest of all that the stores and ledgers say, write-ahead logs included: every row of every table of theirs, and
    every checkpoint. The counter of write probes is no record."""
    digest = hashlib.sha256()
    for path in sorted([*home.glob("store/*/*.sqlite"), *home.glob("ledger/*.sqlite")]):
        with TemporaryDirectory() as scratch:
            for part in path.parent.glob(f"{path.name}*"):
                if not part.name.endswith("-shm"):
                    shutil.copy(part, scratch)
            db = sqlite3.connect(Path(scratch) / path.name)
            there = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
            for table in sorted(there & {"stored_events", "entries", "held", "nodes", "checkpoint", "meta"}):
                rows = db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
                digest.update(repr((path.name, table, rows)).encode())
            db.close()
    for path in sorted(home.glob("ledger/*.checkpoint")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def test_an_untouched_home_is_in_order(home: Path) -> None:
    report = audit_check(home)
    assert (report["ok"], [tenant["faults"] for tenant in report["tenants"]]) == (True, [[], []])
    acme = report["tenants"][0]
    assert (acme["tenant"], acme["entries"], acme["pending"]) == ("acme", 2 + 12 * 6, 0)
    assert acme["effects_checked"] == 2 * 12
    assert acme["checked"] == {
        "ledger": True, "stores": ["agent-runtime", "auth"], "heads": [], "stream": False, "permits": True,
    }  # fmt: skip
    assert "nats" in report["notes"][0]


def test_a_check_changes_no_file(home: Path) -> None:
    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}

    before = state()
    audit_check(home)
    trail_verify(home, "acme/analyst")
    after = state()
    assert {name: after[name] for name in before} == before
    assert all("/vault/vault.sqlite-" in name for name in after.keys() - before.keys())  # SQLite's own, empty


def test_a_byte_changed_in_a_stored_event_is_found_and_the_record_named(home: Path) -> None:
    path = store(home, "auth")
    raw = path.read_bytes()
    with sqlite3.connect(path) as db:
        state = db.execute("SELECT state FROM stored_events WHERE rowid = 2").fetchone()[0]
    db.close()
    flip(path, raw.index(state) + 20)
    assert faults(home) == [("acme", "store", "auth", 2, "record.altered")]


def test_a_byte_changed_in_the_ledger_is_found_and_the_record_named(home: Path) -> None:
    path = home / "ledger" / "globex.sqlite"
    with sqlite3.connect(path) as db:
        state = db.execute(
            "SELECT state FROM entries WHERE service = 'agent-runtime' AND notification_id = 30"
        ).fetchone()[0]
    db.close()
    flip(path, path.read_bytes().index(state) + 20)
    assert ("globex", "ledger", "agent-runtime", 30, "record.altered") in faults(home)
    assert {fault[:4] for fault in faults(home)} == {("globex", "ledger", "agent-runtime", 30)}


def edit(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as db:
        for statement in statements:
            assert db.execute(statement).rowcount != 0
    db.close()


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("DELETE FROM stored_events WHERE rowid = 9", ("acme", "store", "agent-runtime", 9, "record.missing")),
        ("DELETE FROM stored_events WHERE rowid = 72", ("acme", "store", "agent-runtime", 72, "record.missing")),
        (
            "UPDATE stored_events SET user_id = 'u-x' WHERE rowid = 9",
            ("acme", "store", "agent-runtime", 9, "record.altered"),
        ),
        (
            "UPDATE stored_events SET tenant = 'globex' WHERE rowid = 9",
            ("acme", "store", "agent-runtime", 9, "record.altered"),
        ),
        (
            "UPDATE stored_events SET recorded_at = '2020-01-01T00:00:00.000000Z' WHERE rowid = 9",
            ("acme", "store", "agent-runtime", 9, "record.altered"),
        ),
        (
            "UPDATE stored_events SET state = 'text' WHERE rowid = 9",
            ("acme", "store", "agent-runtime", 9, "record.altered"),
        ),
        ("DROP INDEX stored_events_by_user", ("acme", "store", "agent-runtime", None, "file.damaged")),
    ],
)
def test_structural_edits_of_a_store_are_named(home: Path, statement: str, named: tuple[Any, ...]) -> None:
    edit(store(home), statement)
    assert named in faults(home)


def test_two_events_that_changed_places_are_found(home: Path) -> None:
    edit(
        store(home),
        "UPDATE stored_events SET rowid = 1000 WHERE rowid = 9",
        "UPDATE stored_events SET rowid = 9 WHERE rowid = 10",
        "UPDATE stored_events SET rowid = 10 WHERE rowid = 1000",
    )
    assert {(fault[3], fault[4]) for fault in faults(home)} == {(9, "record.altered"), (10, "record.altered")}


async def test_a_store_rewritten_with_a_valid_chain_is_a_fork(home: Path, tmp_path: Path) -> None:
    other = await recorded_home(tmp_path / "other")
    shutil.copy(store(other.path, "auth"), store(home, "auth"))
    assert ("acme", "store", "auth", 1, "record.forked") in faults(home)


def test_a_store_that_vanished_is_found(home: Path) -> None:
    store(home, "auth").unlink()
    assert faults(home) == [("acme", "store", "auth", None, "file.damaged")]


def test_a_ledger_that_vanished_is_found(home: Path) -> None:
    (home / "ledger" / "acme.sqlite").unlink()
    assert ("acme", "ledger", "", None, "file.damaged") in faults(home)
    (home / "ledger" / "acme.checkpoint").unlink()
    assert ("acme", "ledger", "", None, "file.damaged") in faults(home)


def test_what_could_not_be_compared_is_said(home: Path) -> None:
    (home / "secrets" / "master.key").unlink()
    (home / "ledger" / "globex.sqlite").unlink()
    acme, globex = audit_check(home)["tenants"]
    assert (acme["checked"]["ledger"], acme["checked"]["permits"]) == (True, False)
    assert (globex["checked"]["ledger"], globex["checked"]["stores"]) == (False, ["agent-runtime", "auth"])


def remove_all_of(home: Path, tenant: str) -> None:
    """Ledger, checkpoint and stores of a tenant, with what SQLite keeps beside them."""
    for path in [*home.glob(f"ledger/{tenant}.*"), *home.glob(f"store/*/{tenant}.*")]:
        path.unlink()


def stream_of(home: Path, tenant: str, messages: bytes) -> Path:
    """A stream's directory as the bus keeps it."""
    path = home / "nats" / "js" / "jetstream" / "APP" / "streams" / f"EVENTS_{tenant}"
    (path / "msgs").mkdir(parents=True)
    (path / "msgs" / "1.blk").write_bytes(messages)
    return path


def test_a_tenant_of_whom_every_file_is_gone_is_missed(home: Path) -> None:
    stream_of(home, "acme", b"sealed")
    remove_all_of(home, "acme")
    report = audit_check(home)
    acme = report["tenants"][0]
    assert (acme["tenant"], report["ok"], acme["entries"]) == ("acme", False, 0)
    assert acme["checked"] == {"ledger": False, "stores": [], "heads": [], "stream": False, "permits": False}
    (fault,) = acme["faults"]
    assert (fault["copy"], fault["code"]) == ("ledger", "file.damaged")
    assert "no store is here" in fault["reason"]
    assert "its keys in the vault and the bus's stream EVENTS_acme tell" in fault["reason"]


def test_either_its_keys_or_its_stream_tell_of_a_tenant(home: Path, tmp_path: Path) -> None:
    remove_all_of(home, "acme")
    gone = ("acme", "ledger", "", None, "file.damaged")
    assert faults(home) == [gone]
    shutil.rmtree(home / "vault")
    assert gone not in faults(home)
    stream_of(home, "acme", b"sealed")
    assert gone in faults(home)


def test_a_stream_that_never_had_a_message_and_the_platforms_own_need_no_ledger(home: Path) -> None:
    stream_of(home, "late", b"")
    stream_of(home, "platform", b"sealed")
    stream_of(home, "No_Label", b"sealed")
    assert faults(home) == []


@pytest.mark.parametrize("garbage", [b"", b"no database", bytes(5000), b"SQLite format 3\0" + bytes(4080)])
@pytest.mark.parametrize(
    "name", ["ledger/acme.sqlite", "ledger/acme.checkpoint", "store/auth/acme.sqlite", "vault/vault.sqlite"]
)
def test_garbage_in_any_file_is_reported(home: Path, name: str, garbage: bytes) -> None:
    (home / name).write_bytes(garbage)
    assert faults(home) != []


@pytest.mark.parametrize("name", ["ledger/acme.sqlite", "store/agent-runtime/acme.sqlite"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_reported(home: Path, name: str, part: float) -> None:
    path = home / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    assert faults(home) != []


def test_a_key_of_another_ledger_verifies_nothing(home: Path) -> None:
    (home / "public" / "ledger.pub").write_text("00" * 32)
    assert ("acme", "ledger", "", None, "checkpoint.invalid") in faults(home)


def edit_bytes(home: Path, pattern: str, edits: int, seed: int) -> tuple[int, int]:
    """Edit one byte at a time and undo it; how many were detected, and how many changed nothing that the files say."""
    chance = random.Random(seed)
    files = sorted([*home.glob(f"store/*/{pattern}"), *home.glob(f"ledger/{pattern}")])
    before = contents(home)
    detected = harmless = 0
    for _ in range(edits):
        path = chance.choice(files)
        place, mask = chance.randrange(path.stat().st_size), chance.randrange(1, 256)
        flip(path, place, mask)
        if faults(home):
            detected += 1
        else:
            assert contents(home) == before, f"{path.name}: byte {place} ^ {mask} changed a record unseen"
            harmless += 1
        flip(path, place, mask)
    assert faults(home) == []
    return detected, harmless


async def test_any_single_byte_edit_is_detected_or_changes_nothing_that_the_files_say(tmp_path: Path) -> None:
    """Seeded. An edit is harmless only when every row of every table reads the same as before."""
    home = (await recorded_home(tmp_path / "home", ["acme"])).path
    detected, harmless = edit_bytes(home, "acme.[sc]*[et]", EDITS, seed=20260131)
    assert detected + harmless == EDITS
    assert detected > EDITS / 3


async def test_any_single_byte_edit_of_what_a_kill_left_is_detected_or_changes_nothing(tmp_path: Path) -> None:
    """A byte of a write-ahead log can undo whole transactions: then one copy lacks what another has."""
    killed = tmp_path / "killed"
    await recorded_home(tmp_path / "home", ["acme"], killed_copy=killed)
    assert list(killed.glob("store/*/acme.sqlite-wal"))
    assert faults(killed) == []
    detected, _ = edit_bytes(killed, "acme.sqlite-wal", EDITS // 4, seed=7)
    assert detected > 0


@pytest.fixture
async def recorder(tmp_path: Path) -> Recorder:
    home = Home.create(tmp_path / "recorded")
    recorder = Recorder(home)
    await recorder.register("acme", ANALYST, "analyst")
    return recorder


async def witnessed(recorder: Recorder) -> list[tuple[str, int | None]]:
    """(code, notification id) of every fault once the ledger has all."""
    await recorder.witness("acme")
    await recorder.close()
    assert {fault[1] for fault in faults(recorder.home.path)} <= {"permit"}
    return [(fault[4], fault[3]) for fault in faults(recorder.home.path)]


def replaced_version(event: Any, version: int) -> Any:
    event.__dict__["originator_version"] = version
    return event


@pytest.mark.parametrize(
    ("forged", "code"),
    [
        ({"tenant": "globex"}, "permit.mismatch"),
        ({"user": READER}, "permit.mismatch"),
        ({"run": "f" * 32}, "permit.mismatch"),
        ({"ordinal": 2}, "permit.mismatch"),
        ({"tool": "docs"}, "permit.mismatch"),
        ({"args_digest": "0" * 64}, "permit.mismatch"),
        ({"token": ""}, "permit.missing"),
        ({"token": "no permit"}, "permit.invalid"),
    ],
)
async def test_an_effect_with_a_permit_for_something_else_is_found(
    recorder: Recorder, forged: dict[str, Any], code: str
) -> None:
    await recorder.run("acme", ANALYST, 1, forged)
    assert await witnessed(recorder) == [(code, 3)]


async def test_an_effect_with_a_permit_of_another_signer_is_found(recorder: Recorder) -> None:
    from remit_chassis.permits import PermitSigner

    recorder.signer = PermitSigner(bytes(32))
    await recorder.run("acme", ANALYST, 1)
    assert await witnessed(recorder) == [("permit.invalid", 3)]


async def test_an_effect_without_an_authorisation_before_it_is_found(recorder: Recorder) -> None:
    run = accepted(ANALYST, 1)
    run.start(at=run.created_on)
    authorize(run, "acme", ANALYST, recorder.signer)
    forged = run.collect_events()[:2]  # the runtime leaves its authorisation out
    complete(run)
    run._pending_events[:0] = forged
    run._pending_events[2] = replaced_version(run._pending_events[2], 3)
    await recorder.store("agent-runtime", "acme").save(run, user=ANALYST)
    assert await witnessed(recorder) == [("effect.unauthorized", 3)]


async def test_an_erased_user_s_effects_are_counted_and_the_rest_still_checked(recorder: Recorder) -> None:
    await recorder.register("acme", READER, "reader")
    await recorder.run("acme", ANALYST, 1)
    await recorder.run("acme", READER, 2)
    recorder.vault.destroy_user_key("acme", READER)
    assert await witnessed(recorder) == []
    report = audit_check(recorder.home.path)["tenants"][0]
    assert (report["effects_checked"], report["erased"]) == (2, 2)
    page = trail_show(recorder.home.path, f"acme/{READER}")
    assert {entry["data"] for entry in page["entries"]} == {"erased"}
    assert trail_verify(recorder.home.path, f"acme/{READER}")["ok"]


async def test_events_that_the_ledger_had_not_received_are_pending_and_no_fault(recorder: Recorder) -> None:
    await recorder.witness("acme")
    await recorder.run("acme", ANALYST, 1)
    await recorder.close()
    report = audit_check(recorder.home.path)
    assert (report["ok"], report["tenants"][0]["pending"]) == (True, 6)


def test_a_trail_is_shown_by_handle_page_by_page(home: Path) -> None:
    first = trail_show(home, "acme/analyst", limit=10)
    rest = trail_show(home, "acme/analyst", after=first["next"], limit=100)
    entries = first["entries"] + rest["entries"]
    assert (len(first["entries"]), len(entries), rest["next"]) == (10, 1 + 6 * 6, None)
    assert {entry["user"] for entry in entries} == {ANALYST}
    accepted_run = next(entry for entry in entries if entry["event"] == "runtime.Run.Accepted")
    assert accepted_run["data"]["prompt"] == "question 1"
    assert accepted_run["run_id"] == accepted_run["aggregate"]
    assert trail_show(home, f"acme/{ANALYST}", limit=10) == first


def test_a_trail_of_nobody_is_absent(home: Path, tmp_path: Path) -> None:
    for who in ("acme/nobody", "initech/analyst"):
        with pytest.raises(Absent):
            trail_show(home, who)
    with pytest.raises(Absent):
        audit_check(tmp_path)


def test_a_trail_verifies_and_an_edit_of_it_is_named(home: Path) -> None:
    whole = trail_verify(home, "acme/reader")
    assert (whole["ok"], whole["entries"], whole["faults"]) == (True, 1 + 6 * 6, [])
    edit(home / "ledger" / "acme.sqlite", "UPDATE entries SET state = zeroblob(80) WHERE idx = 1")
    altered = trail_verify(home, "acme/reader")
    assert [(fault["service"], fault["notification_id"], fault["code"]) for fault in altered["faults"]] == [
        ("auth", 2, "record.altered")
    ]
    assert trail_verify(home, "acme/analyst")["ok"]
