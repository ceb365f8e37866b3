"""Signed notes against the one published with the format, and what a tampered one must not get past."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from remit_audit import checkpoint as notes
from remit_contracts.errors import Tampered

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
NOTE = notes.sign(notes.Checkpoint("remit/acme", 7, bytes(range(32))), KEY)

PUBLISHED_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PUBLISHED_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)  # golang.org/x/mod/sumdb/note


def test_the_published_note_opens_with_its_published_key() -> None:
    name, digest, encoded = PUBLISHED_KEY.split("+", 2)
    kind, public = base64.b64decode(encoded)[:1], base64.b64decode(encoded)[1:]
    assert kind == notes.ED25519
    assert notes.key_hash(name, public).hex() == digest
    assert notes.open_note(PUBLISHED_NOTE, name, public).startswith("If you think")


def test_a_checkpoint_comes_back_as_it_was_signed() -> None:
    assert notes.verify(NOTE, "acme", PUBLIC) == notes.Checkpoint("remit/acme", 7, bytes(range(32)))


def test_another_witness_s_line_does_not_disturb() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    cosigned = NOTE + notes.sign_note(NOTE.partition("\n\n")[0] + "\n", "witness.example", other).rpartition("\n\n")[2]
    assert notes.verify(cosigned, "acme", PUBLIC).size == 7


def test_no_byte_of_a_note_can_be_changed() -> None:
    raw = NOTE.encode()
    for place in range(len(raw)):
        for bit in (1, 0x20):
            edited = (raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :]).decode(errors="replace")
            with pytest.raises(Tampered):
                notes.verify(edited, "acme", PUBLIC)


@pytest.mark.parametrize(
    "text", ["", "\n", "\n\n", "remit/acme\n7\n", NOTE[:-1], NOTE.replace("\n7\n", "\n07\n"), "— \n\n— "]
)
def test_what_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(Tampered):
        notes.verify(text, "acme", PUBLIC)


def test_a_note_of_another_tenant_or_key_is_refused() -> None:
    with pytest.raises(Tampered):
        notes.verify(NOTE, "globex", PUBLIC)
    with pytest.raises(Tampered):
        notes.verify(NOTE, "acme", bytes(32))


def test_a_size_that_was_signed_in_another_spelling_is_refused() -> None:
    root = base64.b64encode(bytes(32)).decode()
    for size in ("07", "-1", "7 ", "1_0", "٧"):
        with pytest.raises(Tampered):
            notes.verify(notes.sign_note(f"remit/acme\n{size}\n{root}\n", "remit/acme", KEY), "acme", PUBLIC)
