"""Nkeys and claims: the same bytes as the reference implementation, and nothing believed that does not verify."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import nkeys as reference
import pytest

from remit_chassis.nkeys import (
    PREFIXES,
    BadClaims,
    MalformedNkey,
    SignKey,
    XKey,
    decode_claims,
    decode_public,
    decode_seed,
    encode_claims,
    encode_seed,
    read_seed,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("kind", [kind for kind in PREFIXES if kind != "curve"])
def test_a_key_is_the_one_that_the_reference_library_reads_from_its_seed(kind: str) -> None:
    key = SignKey.create(kind)
    other = reference.from_seed(bytearray(key.seed().encode()))
    assert other.public_key.decode() == key.public
    assert other.sign(b"nonce") == key.sign(b"nonce")


def test_a_seed_survives_the_way_through_text() -> None:
    assert decode_seed(encode_seed("user", bytes(range(32)))) == ("user", bytes(range(32)))


def test_one_changed_letter_is_refused_by_the_checksum() -> None:
    seed = SignKey.create("user").seed()
    changed = seed[:20] + ("A" if seed[20] != "A" else "B") + seed[21:]
    with pytest.raises(MalformedNkey):
        SignKey(changed)


@pytest.mark.parametrize("text", ["", "x", "SU", "é" * 56, "A" * 56, "S" * 58])
def test_a_text_that_is_no_seed_is_refused(text: str) -> None:
    with pytest.raises(MalformedNkey):
        decode_seed(text)


def test_a_key_of_one_kind_is_no_key_of_another() -> None:
    with pytest.raises(MalformedNkey):
        decode_public(SignKey.create("user").public, "account")
    with pytest.raises(MalformedNkey):
        SignKey(XKey.create().seed())
    with pytest.raises(MalformedNkey):
        XKey(SignKey.create("account").seed())


def test_only_the_recipient_opens_what_was_sealed_and_only_as_from_its_sender() -> None:
    server, callout, stranger = XKey.create(), XKey.create(), XKey.create()
    sealed = server.seal(b"request", callout.public)
    assert callout.open(sealed, server.public) == b"request"
    for opener, sender in ((stranger, server), (callout, stranger)):
        with pytest.raises(BadClaims):
            opener.open(sealed, sender.public)
    with pytest.raises(BadClaims):
        callout.open(sealed[4:], server.public)
    with pytest.raises(BadClaims):
        callout.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), server.public)


def test_claims_come_back_with_their_issuer_and_instant() -> None:
    key = SignKey.create("account")
    claims = decode_claims(encode_claims(key, {"sub": "u"}, at=NOW), "account", at=NOW)
    assert (claims["iss"], claims["sub"], claims["iat"]) == (key.public, "u", int(NOW.timestamp()))


def test_claims_are_refused_from_the_second_of_their_expiry() -> None:
    token = encode_claims(SignKey.create("account"), {"exp": int(NOW.timestamp())}, at=NOW)
    assert decode_claims(token, "account", at=NOW - timedelta(seconds=1))
    with pytest.raises(BadClaims, match="expired"):
        decode_claims(token, "account", at=NOW)


def test_claims_of_another_kind_of_issuer_are_refused() -> None:
    token = encode_claims(SignKey.create("user"), {})
    with pytest.raises(BadClaims):
        decode_claims(token, "account")


def test_claims_with_any_part_changed_are_refused() -> None:
    key = SignKey.create("account")
    header, body, signature = encode_claims(key, {"sub": "u"}).split(".")
    other_header, other_body, other_signature = encode_claims(key, {"sub": "v"}).split(".")
    unsigned = "eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0"
    for forged in (
        f"{header}.{other_body}.{signature}",
        f"{header}.{body}.{other_signature}",
        f"{unsigned}.{body}.{signature}",
        f"{header}.{body}.",
        f"{header}.{body}",
        "",
    ):
        with pytest.raises(BadClaims):
            decode_claims(forged, "account")
    assert header == other_header


def test_a_seed_file_is_named_and_its_content_is_not_when_it_is_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "auth.nk"
    file.write_text("SUAsecretlookingtext")
    with pytest.raises(MalformedNkey) as refused:
        read_seed(file)
    assert str(file) in str(refused.value)
    assert "secretlooking" not in str(refused.value)
    file.write_text(SignKey.create("user").seed() + "\n")
    assert SignKey.read(file).kind == "user"
