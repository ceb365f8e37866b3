"""The program that is handed to users: alone, with `cryptography` only, it accepts every true bundle and no altered one."""

from __future__ import annotations

import ast
import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from unit.audit.chains import Chain

from remit_audit import verify_proof
from remit_audit.application import proof_of
from remit_audit.ledger import Ledger
from remit_audit.ledger_reader import LedgerReader
from remit_contracts.errors import Absent
from remit_contracts.trails import ProofBundle

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
PROGRAM = Path(verify_proof.__file__)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> LedgerReader:
    path = tmp_path_factory.mktemp("ledger") / "acme.sqlite"
    ledger = Ledger(path, "acme", KEY)
    ledger.receive(Chain("auth").events(21))
    ledger.close()
    return LedgerReader(path, "acme")


def bundle(reader: LedgerReader, index: int = 7) -> dict[str, Any]:
    return orjson.loads(proof_of(reader, f"u-{index % 3}", index, PUBLIC).model_dump_json())


def test_every_entry_is_proved(reader: LedgerReader) -> None:
    for index in range(21):
        assert f"entry {index} of 21" in verify_proof.verify(bundle(reader, index), PUBLIC)


def test_the_program_runs_alone(reader: LedgerReader, tmp_path: Path) -> None:
    alone = tmp_path / "verify_proof.py"
    alone.write_bytes(PROGRAM.read_bytes())
    (tmp_path / "bundle.json").write_bytes(orjson.dumps(bundle(reader)))
    (tmp_path / "ledger.pub").write_text(PUBLIC.hex() + "\n")
    (tmp_path / "other.pub").write_text(bytes(range(32)).hex())

    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-I", alone, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    assert run("bundle.json", "ledger.pub") == (
        0,
        "proved: auth.User.Registered of u-1 is entry 7 of 21 in the ledger of acme\n",
    )
    assert run("bundle.json", "other.pub")[0] == 6
    assert run("ledger.pub", "bundle.json")[0] == 2
    assert run("absent", "ledger.pub")[0] == 2
    assert run()[0] == 2


def test_the_program_needs_nothing_but_cryptography() -> None:
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(PROGRAM.read_text()))
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom)
            else []
        )
    }  # fmt: skip
    assert imported - set(sys.stdlib_module_names) == {"cryptography"}


@pytest.mark.parametrize(
    "field", ["service", "tenant", "user", "originator_id", "topic", "recorded_at", "state", "prev_hash", "hash"]
)
def test_no_field_of_the_event_can_be_changed(reader: LedgerReader, field: str) -> None:
    altered = bundle(reader)
    value = altered["event"][field]
    altered["event"][field] = ("0" if value[0] != "0" else "1") + value[1:] if field != "state" else "QUFB" + value
    with pytest.raises(verify_proof.NotProved):
        verify_proof.verify(altered, PUBLIC)


@pytest.mark.parametrize(("field", "value"), [("notification_id", 9), ("originator_version", 2)])
def test_no_number_of_the_event_can_be_changed(reader: LedgerReader, field: str, value: int) -> None:
    altered = bundle(reader)
    altered["event"][field] = value
    with pytest.raises(verify_proof.NotProved):
        verify_proof.verify(altered, PUBLIC)


def spelled(bundle: dict[str, Any], *place: Any) -> Any:
    """What stands at that place of the bundle."""
    for name in place:
        bundle = bundle[name]
    return bundle


@pytest.mark.parametrize(
    ("place", "spell"),
    [
        *((("event", field), spell) for field in ("notification_id", "originator_version") for spell in (float, str)),
        *((("event", "originator_version"), lambda number, by=by: number + by) for by in (0.5, 1e-9)),
        *(((name,), float) for name in ("index", "size")),
        *(
            (place, spell)
            for place in (("event", "prev_hash"), ("event", "hash"), ("proof", 0))
            for spell in (
                str.upper,
                lambda text: f" {text}",
                lambda text: f"{text[:2]} {text[2:]}",
                lambda text: f"{text}\n",
            )
        ),
        (("proof", 0), lambda text: text + "00"),
        (("event", "state"), lambda text: f"{text}\n"),
    ],
)
def test_a_number_or_digest_in_another_form_proves_nothing(
    reader: LedgerReader, place: tuple[Any, ...], spell: Any
) -> None:
    altered = bundle(reader, 7)
    before = spelled(altered, *place)
    spelled(altered, *place[:-1])[place[-1]] = spell(before)
    assert spelled(altered, *place) != before or type(spelled(altered, *place)) is not type(before)
    with pytest.raises((verify_proof.NotProved, ValueError)):
        verify_proof.verify(altered, PUBLIC)


@pytest.mark.parametrize("name", ["notification_id", "originator_version"])
def test_true_is_no_number(reader: LedgerReader, name: str) -> None:
    altered = bundle(reader, 0)
    assert altered["event"][name] == 1
    altered["event"][name] = True
    with pytest.raises(verify_proof.NotProved, match=f"{name} is no whole number"):
        verify_proof.verify(altered, PUBLIC)


def test_bits_that_base64_leaves_over_must_be_unset(reader: LedgerReader) -> None:
    altered = next(b for index in range(21) if (b := bundle(reader, index))["event"]["state"].endswith("="))
    padded = altered["event"]["state"]
    last = padded.rstrip("=")[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    same = padded.rstrip("=")[:-1] + alphabet[alphabet.index(last) + 1]
    altered["event"]["state"] = same + "=" * (len(padded) - len(same))
    assert base64.b64decode(altered["event"]["state"]) == base64.b64decode(padded)
    with pytest.raises(verify_proof.NotProved, match="state is not the base64"):
        verify_proof.verify(altered, PUBLIC)


def test_no_part_of_the_proof_can_be_changed(reader: LedgerReader) -> None:
    whole = bundle(reader)
    for altered in (
        {"index": 6},
        {"index": -1},
        {"size": 20},
        {"size": 22},
        {"proof": whole["proof"][:-1]},
        {"proof": [*whole["proof"], whole["proof"][0]]},
        {"proof": whole["proof"][::-1]},
        {"checkpoint": whole["checkpoint"].replace("\n21\n", "\n22\n")},
        {"checkpoint": ""},
        {"format": "remit-proof-v2"},
        {"event": bundle(reader, 8)["event"]},
    ):
        with pytest.raises(verify_proof.NotProved):
            verify_proof.verify({**whole, **altered}, PUBLIC)


def test_a_bundle_signed_by_somebody_else_is_not_proved_though_it_brings_its_key(tmp_path: Path) -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    ledger = Ledger(tmp_path / "acme.sqlite", "acme", other)
    ledger.receive(Chain("auth").events(3))
    ledger.close()
    theirs = proof_of(LedgerReader(tmp_path / "acme.sqlite", "acme"), "u-1", 1, other.public_key().public_bytes_raw())
    with pytest.raises(verify_proof.NotProved):
        verify_proof.verify(orjson.loads(theirs.model_dump_json()), PUBLIC)


def test_nobody_gets_a_proof_of_another_user_s_entry(reader: LedgerReader) -> None:
    for user, index in (("u-2", 7), ("u-1", 21), ("u-1", 5000)):
        with pytest.raises(Absent):
            proof_of(reader, user, index, PUBLIC)


def test_a_bundle_survives_its_way_over_the_bus(reader: LedgerReader) -> None:
    made = proof_of(reader, "u-1", 7, PUBLIC)
    assert ProofBundle.from_bytes(made.to_bytes()) == made
