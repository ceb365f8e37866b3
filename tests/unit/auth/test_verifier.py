"""Tokens: ours are believed while they last, and nothing else ever is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from remit_auth.issuer import BuiltInIssuerRefused, DevelopmentIssuer
from remit_auth.verifier import MAX_TOKEN_BYTES, Credential, InvalidToken, Verifier
from remit_contracts.identity import Caller

NOW = datetime(2030, 1, 1, 9, 30, tzinfo=UTC)
SEED = bytes(range(32))
OTHER_SEED = bytes(range(1, 33))
ISSUER = DevelopmentIssuer(SEED, oidc_issuer=None)
VERIFIER = Verifier(ISSUER.public_key)
PUBLIC = bytes(SigningKey(SEED).verify_key)
HEADER = {"alg": "Ed25519", "typ": "at+jwt"}
CLAIMS: dict[str, Any] = {
    "iss": "remit-dev",
    "aud": "remit",
    "tenant": "acme",
    "sub": "u-1",
    "sid": "s-1",
    "jti": "t-1",
    "iat": int(NOW.timestamp()),
    "nbf": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 60,
}
GOOD = ISSUER.issue(
    tenant="acme", user="u-1", session="s-1", token_id="t-1", issued_at=NOW, expires_at=NOW + timedelta(seconds=60)
)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: object, claims: object, seed: bytes = SEED) -> str:
    """Any header and claims, really signed: what no honest library would make."""
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{text}.{b64(SigningKey(seed).sign(text.encode()).signature)}"


def refused(token: str, at: datetime = NOW) -> str:
    with pytest.raises(InvalidToken) as refusal:
        VERIFIER.verify(token, at=at)
    assert refusal.value.refusal_code == "auth.not_signed_in"
    assert len(token) < 20 or token not in refusal.value.reason
    return refusal.value.reason


def test_a_token_of_ours_says_who_connects_until_when() -> None:
    assert VERIFIER.verify(GOOD, at=NOW) == Credential(Caller("acme", "u-1", "s-1"), CLAIMS["exp"])


def test_a_hand_made_token_with_our_key_is_believed_so_the_attacks_below_fail_for_their_own_reason() -> None:
    assert VERIFIER.verify(signed(HEADER, CLAIMS), at=NOW).caller.user == "u-1"


@pytest.mark.parametrize("seconds", [60, 61, 10_000_000])
def test_an_expired_token_is_refused_to_the_second(seconds: int) -> None:
    assert VERIFIER.verify(GOOD, at=NOW + timedelta(seconds=59.9))
    assert "expired" in refused(GOOD, NOW + timedelta(seconds=seconds))


def test_a_token_from_the_future_is_refused() -> None:
    assert "not valid yet" in refused(GOOD, NOW - timedelta(seconds=1))
    assert "not valid yet" in refused(signed(HEADER, CLAIMS | {"nbf": CLAIMS["nbf"] + 5}))


def test_another_key_signs_nothing() -> None:
    refused(signed(HEADER, CLAIMS, OTHER_SEED))


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "", "HS256", "HS512", "RS256", "ES256", "EdDSA", "ed25519", "Ed448", None, 1]
)
def test_no_other_algorithm_is_accepted_even_with_our_signature(alg: object) -> None:
    refused(signed(HEADER | {"alg": alg}, CLAIMS))


def test_alg_none_without_a_signature_is_refused() -> None:
    unsigned = f"{b64(json.dumps(HEADER | {'alg': 'none'}).encode())}.{b64(json.dumps(CLAIMS).encode())}."
    refused(unsigned)
    refused(unsigned + "AA")


@pytest.mark.parametrize("key", [PUBLIC, PUBLIC.hex().encode(), b64(PUBLIC).encode()])
def test_the_public_key_is_no_hmac_secret(key: bytes) -> None:
    text = f"{b64(json.dumps(HEADER | {'alg': 'HS256'}).encode())}.{b64(json.dumps(CLAIMS).encode())}"
    refused(f"{text}.{b64(hmac.new(key, text.encode(), hashlib.sha256).digest())}")


@pytest.mark.parametrize(
    "extra",
    [
        {"kid": "../../../../dev/null"},
        {"kid": "' OR 1=1 --"},
        {"jku": "http://127.0.0.1:9/keys"},
        {"x5u": "http://127.0.0.1:9/cert"},
        {"x5c": ["MIIB"]},
        {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(bytes(SigningKey(OTHER_SEED).verify_key))}},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"typ": "JWT"},
        {"typ": "id_token"},
        {"typ": None},
    ],
    ids=str,
)
def test_a_header_that_says_more_or_other_is_refused_with_either_key(extra: dict[str, object]) -> None:
    assert "header" in refused(signed(HEADER | extra, CLAIMS))
    refused(signed(HEADER | extra, CLAIMS, OTHER_SEED))


def test_a_header_without_a_type_is_refused() -> None:
    refused(signed({"alg": "Ed25519"}, CLAIMS))


@pytest.mark.parametrize("claim", list(CLAIMS))
def test_every_claim_is_required(claim: str) -> None:
    refused(signed(HEADER, {name: value for name, value in CLAIMS.items() if name != claim}))


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "remit-dev/"},
        {"iss": "Remit-dev"},
        {"iss": "rеmit-dev"},
        {"iss": ["remit-dev"]},
        {"aud": ["remit"]},
        {"aud": ["remit", "other"]},
        {"aud": "remit "},
        {"aud": ""},
        {"tenant": "acme.globex"},
        {"tenant": "*"},
        {"sub": ">"},
        {"sub": "u-1.cmd"},
        {"sub": "u-1\n"},
        {"sub": ["u-1"]},
        {"sid": ""},
        {"jti": None},
        {"exp": True},
        {"exp": str(CLAIMS["exp"])},
        {"exp": float(CLAIMS["exp"])},
        {"exp": -1},
        {"exp": 10**30},
        {"exp": CLAIMS["iat"] + 365 * 86_400},
        {"iat": None},
        {"nbf": [1]},
    ],
    ids=str,
)
def test_a_claim_of_another_value_or_type_is_refused(changed: dict[str, object]) -> None:
    refused(signed(HEADER, CLAIMS | changed))


@pytest.mark.parametrize("claims", [[], "x", 1, None, {}])
def test_claims_that_are_no_object_of_ours_are_refused(claims: object) -> None:
    refused(signed(HEADER, claims))


def test_a_token_of_ten_megabytes_is_refused_unread() -> None:
    assert str(MAX_TOKEN_BYTES) in refused(signed(HEADER, CLAIMS | {"x": "a" * 10_000_000}))


def test_deep_nesting_is_refused_and_crashes_nothing() -> None:
    deep = ("[" * 700) + ("]" * 700)
    text = f"{b64(json.dumps(HEADER).encode())}.{b64(deep.encode())}"
    refused(f"{text}.{b64(SigningKey(SEED).sign(text.encode()).signature)}")


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b.c", "é.é.é", GOOD + ".x", GOOD + "\n", " " + GOOD, GOOD + "=", GOOD.replace(".", "..")]
)
def test_text_that_is_no_compact_token_is_refused(text: str) -> None:
    refused(text)


def test_no_part_of_one_token_fits_another() -> None:
    other = ISSUER.issue(
        tenant="globex",
        user="u-1",
        session="s-1",
        token_id="t-2",
        issued_at=NOW,
        expires_at=NOW + timedelta(seconds=60),
    )
    ours, theirs = GOOD.split("."), other.split(".")
    refused(".".join((ours[0], theirs[1], ours[2])))


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("ABCxyz019-_."))
def test_a_token_with_one_other_character_is_never_somebody_else(place: int, character: str) -> None:
    altered = GOOD[:place] + character + GOOD[place + 1 :]
    try:
        credential = VERIFIER.verify(altered, at=NOW)
    except InvalidToken:
        return
    assert credential == VERIFIER.verify(GOOD, at=NOW)  # unused bits at the end of a base64 text may differ


@given(st.text(max_size=200))
def test_no_text_at_all_crashes_the_verifier(text: str) -> None:
    refused(text)


def test_the_built_in_issuer_refuses_to_work_beside_an_oidc_issuer() -> None:
    with pytest.raises(BuiltInIssuerRefused, match=r"https://idp\.acme\.test"):
        DevelopmentIssuer(SEED, oidc_issuer="https://idp.acme.test")


def test_the_verifiers_key_holds_no_private_part() -> None:
    assert "d" not in ISSUER.public_key.as_dict()
    assert not ISSUER.public_key.is_private
