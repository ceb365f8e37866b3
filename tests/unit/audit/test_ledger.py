"""The ledger: what it appends, holds, finds and refuses to sign."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.audit.chains import Chain

from remit_audit import checkpoint as notes
from remit_audit.ledger import Ledger
from remit_audit.ledger_file import checkpoint_file
from remit_audit.ledger_reader import LedgerReader
from remit_audit.verification import verify_ledger, verify_user
from remit_contracts.errors import Tampered, Unavailable

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()


def opened(path: Path) -> Ledger:
    return Ledger(path / "acme.sqlite", "acme", KEY)


def verdict(path: Path) -> list[tuple[str, int | None]]:
    reader = LedgerReader(path / "acme.sqlite", "acme")
    try:
        return [(found.code, found.notification_id) for found in verify_ledger(reader, PUBLIC).findings]
    finally:
        reader.close()


def edit(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path / "acme.sqlite") as db:
        assert db.execute(statement, values).rowcount > 0
    db.close()


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A ledger of 40 events of two services, closed."""
    ledger = opened(tmp_path)
    for batch in (Chain("auth").events(20), Chain("policy").events(20)):
        assert ledger.receive(batch).appended == 20
    ledger.close()
    return tmp_path


def test_a_ledger_verifies_after_every_batch_and_after_reopening(tmp_path: Path) -> None:
    auth, policy = Chain("auth"), Chain("policy")
    for count in (1, 3, 7, 30):
        ledger = opened(tmp_path)
        ledger.receive(auth.events(count) + policy.events(count))
        ledger.close()
        assert verdict(tmp_path) == []
    assert ledger.size == 82
    assert ledger.head("auth") == (41, auth.last)


def test_what_was_received_already_is_not_appended_again(tmp_path: Path) -> None:
    events = Chain().events(5)
    ledger = opened(tmp_path)
    ledger.receive(events)
    again = ledger.receive(events + events[:2])
    assert (again.appended, again.duplicates, again.size, again.findings) == (0, 7, 5, [])


def test_an_event_that_came_too_early_waits_also_over_a_restart(tmp_path: Path) -> None:
    events = Chain().events(6)
    ledger = opened(tmp_path)
    receipt = ledger.receive([events[0], events[3], events[5]])
    assert (receipt.appended, receipt.held) == (1, 2)
    assert ledger.gaps() == [("auth", 2, 3), ("auth", 5, 5)]
    ledger.close()
    ledger = opened(tmp_path)
    ledger.receive(events[1:3])
    assert (ledger.size, ledger.gaps()) == (4, [("auth", 5, 5)])
    ledger.receive([events[4]])
    assert (ledger.size, ledger.gaps()) == (6, [])
    assert verdict(tmp_path) == []


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), batches=st.integers(1, 8))
def test_whatever_the_order_of_arrival_every_service_lies_in_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int, batches: int
) -> None:
    path = tmp_path_factory.mktemp("ledger")
    chance = random.Random(seed)
    arrivals = Chain("auth").events(15) + Chain("policy").events(15)
    arrivals += chance.choices(arrivals, k=10)
    chance.shuffle(arrivals)
    ledger = opened(path)
    for batch in range(batches):
        receipt = ledger.receive(arrivals[batch::batches])
        assert receipt.findings == []
    assert (ledger.size, ledger.gaps()) == (30, [])
    ledger.close()
    assert verdict(path) == []


def test_a_second_event_under_a_known_number_is_a_fork_and_changes_nothing(tmp_path: Path) -> None:
    chain, rival = Chain(), Chain()
    ledger = opened(tmp_path)
    ledger.receive(chain.events(3))
    receipt = ledger.receive([rival.event(b"another story")])
    assert [(found.code, found.service, found.notification_id) for found in receipt.findings] == [
        ("record.forked", "auth", 1)
    ]
    assert ledger.size == 3
    assert verdict(tmp_path) == []


def test_a_fork_is_found_while_the_first_still_waits(tmp_path: Path) -> None:
    events, rival = Chain().events(3), Chain()
    rival.events(2)
    ledger = opened(tmp_path)
    ledger.receive([events[2]])
    assert [found.code for found in ledger.receive([rival.event(b"x")]).findings] == ["record.forked"]


def test_an_event_that_does_not_continue_the_chain_is_witnessed_and_found(tmp_path: Path) -> None:
    events = Chain().events(2)
    stray = msgspec.structs.replace(events[1], prev_hash=bytes(range(32))).sealed()
    ledger = opened(tmp_path)
    receipt = ledger.receive([events[0], stray])
    assert [(found.code, found.notification_id) for found in receipt.findings] == [("chain.broken", 2)]
    assert ledger.size == 2
    assert verdict(tmp_path) == [("chain.broken", 2)]


def test_an_event_of_another_tenant_is_refused_and_nothing_of_its_batch_kept(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with pytest.raises(Tampered):
        ledger.receive([Chain().event(), Chain(tenant="globex").event()])
    assert ledger.size == 0
    assert ledger.receive(Chain().events(2)).appended == 2


def test_an_altered_entry_is_named_and_the_rest_stays_proved(filled: Path) -> None:
    edit(filled, "UPDATE entries SET state = ? WHERE service = 'auth' AND notification_id = 7", b"edited")
    assert verdict(filled) == [("record.altered", 7)]


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("DELETE FROM entries WHERE idx = 11", "record.missing"),
        ("DELETE FROM entries WHERE idx >= 30", "checkpoint.contradicted"),
        ("UPDATE entries SET user_id = 'u-9' WHERE idx = 4", "record.altered"),
        ("UPDATE entries SET recorded_at = '2020' WHERE idx = 4", "record.altered"),
        ("UPDATE entries SET topic = 5 WHERE idx = 4", "record.altered"),
        ("UPDATE entries SET hash = NULL || x'00' WHERE idx = 4", "IntegrityError"),
        ("UPDATE nodes SET hash = zeroblob(32) WHERE level = 2 AND idx = 3", "tree.altered"),
        ("DELETE FROM nodes WHERE level = 1 AND idx = 0", "tree.altered"),
        ("INSERT INTO nodes VALUES (9, 0, zeroblob(32))", "tree.altered"),
        ("UPDATE checkpoint SET note = replace(note, char(10) || '40', char(10) || '39')", "checkpoint.invalid"),
        ("DELETE FROM checkpoint", "checkpoint.invalid"),
        ("UPDATE meta SET value = 'globex' WHERE name = 'tenant'", "file.damaged"),
        ("INSERT INTO meta VALUES ('stream', 'forged')", "file.damaged"),
    ],
)
def test_every_edit_of_the_file_is_found(filled: Path, statement: str, code: str) -> None:
    if code == "IntegrityError":
        with pytest.raises(sqlite3.IntegrityError):
            edit(filled, statement)
        return
    edit(filled, statement)
    assert code in {found for found, _ in verdict(filled)}


def test_two_entries_that_changed_places_are_found(filled: Path) -> None:
    edit(filled, "UPDATE entries SET idx = -1 WHERE idx = 3")
    edit(filled, "UPDATE entries SET idx = 3 WHERE idx = 4")
    edit(filled, "UPDATE entries SET idx = 4 WHERE idx = -1")
    assert ("tree.altered", None) in verdict(filled)


def test_an_index_that_hides_a_user_s_entry_is_found(filled: Path) -> None:
    db = sqlite3.connect(filled / "acme.sqlite")
    db.execute("PRAGMA writable_schema = ON")
    db.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, 'idx)', 'idx) WHERE idx > 20') WHERE name = 'entries_of_user'"
    )
    db.commit()
    db.close()
    assert "file.damaged" in {code for code, _ in verdict(filled)}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE nodes SET hash = zeroblob(32) WHERE level = 5",
        "DELETE FROM entries WHERE idx = 39",
        "DELETE FROM checkpoint",
        "UPDATE checkpoint SET note = 'remit/acme'",
    ],
)
def test_nothing_is_signed_on_top_of_a_file_that_contradicts_its_checkpoint(filled: Path, statement: str) -> None:
    edit(filled, statement)
    with pytest.raises(Tampered):
        opened(filled)


def test_a_tree_that_its_own_checkpoint_does_not_sign_is_refused_without_the_note_beside(filled: Path) -> None:
    (filled / "acme.checkpoint").unlink()
    edit(filled, "UPDATE nodes SET hash = zeroblob(32) WHERE level = 5")
    with pytest.raises(Tampered, match="contradicts its checkpoint"):
        opened(filled)


def test_nothing_is_signed_when_the_file_changes_under_its_writer(filled: Path) -> None:
    ledger = opened(filled)
    edit(filled, "DELETE FROM entries WHERE idx = 39")
    with pytest.raises(Tampered):
        ledger.receive(Chain("agent-runtime").events(1))


def test_a_ledger_rolled_back_as_a_whole_is_refused_and_found(filled: Path) -> None:
    shutil.copy(filled / "acme.sqlite", filled / "old.sqlite")
    ledger = opened(filled)
    ledger.receive(Chain("agent-runtime").events(3))
    ledger.close()
    shutil.copy(filled / "old.sqlite", filled / "acme.sqlite")
    assert verdict(filled) == [("checkpoint.contradicted", None)]
    with pytest.raises(Tampered):
        opened(filled)


def test_a_ledger_that_vanished_is_not_begun_anew(filled: Path) -> None:
    (filled / "acme.sqlite").unlink()
    with pytest.raises(Tampered):
        opened(filled)


def test_a_full_disk_refuses_the_batch_and_a_later_one_goes_on(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    events = Chain().events(50)
    ledger.receive(events[:2])
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable):
        ledger.receive(events[2:])
    assert (ledger.size, ledger.head("auth")[0]) == (2, 2)
    ledger._db.execute("PRAGMA max_page_count = 1000000")
    assert ledger.receive(events[2:]).appended == 48
    assert verdict(tmp_path) == []


def test_the_checkpoint_beside_the_file_is_the_one_inside(filled: Path) -> None:
    reader = LedgerReader(filled / "acme.sqlite", "acme")
    beside = checkpoint_file(filled / "acme.sqlite").read_text()
    assert reader.note() == beside
    assert notes.verify(beside, "acme", PUBLIC).size == 40


def test_what_is_remembered_comes_back_and_cannot_be_edited(filled: Path) -> None:
    ledger = opened(filled)
    assert ledger.remembered("stream") == ""
    ledger.remember("stream", "17 of EVENTS_acme")
    assert ledger.remembered("stream") == "17 of EVENTS_acme"
    assert verdict(filled) == []
    edit(filled, "UPDATE meta SET value = replace(value, '17', '16') WHERE name = 'stream'")
    with pytest.raises(Tampered):
        ledger.remembered("stream")
    assert verdict(filled) == [("file.damaged", None)]


def test_a_user_s_trail_verifies_and_names_what_was_altered(filled: Path) -> None:
    reader = LedgerReader(filled / "acme.sqlite", "acme")
    whole = verify_user(reader, "u-1", PUBLIC)
    assert (whole.ok, whole.entries) == (True, 14)
    edit(filled, "UPDATE entries SET state = x'00' WHERE service = 'policy' AND notification_id = 2")
    found = verify_user(reader, "u-1", PUBLIC).findings
    assert [(fault.code, fault.service, fault.notification_id) for fault in found] == [("record.altered", "policy", 2)]
    assert verify_user(reader, "u-0", PUBLIC).ok
