"""A permit says what policy signed, to whoever holds the public key, and nothing else."""

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_chassis.permits import PermitSigner, PermitVerifier
from remit_contracts.errors import MalformedCommand, refusal_from
from remit_contracts.fast_decisions import Obligation
from remit_contracts.permits import PermitClaims, PermitRefused, args_digest, canonical_json, join, split

SIGNER = PermitSigner(bytes(range(32)))
VERIFIER = PermitVerifier(SIGNER.public_key)
NOW = 1_770_000_000.0

CLAIMS = PermitClaims(
    jti="d-1",
    tenant="acme",
    user="u-1",
    session="s-1",
    run="r-1",
    ordinal=3,
    tool="sql",
    args_digest=args_digest({"query": "select 1"}),
    scopes=("read",),
    obligations=(Obligation("max_rows", {"limit": 100}),),
    bundle_digest="b" * 64,
    data_revision="7",
    input_digest="i" * 64,
    iat=NOW,
    exp=NOW + 15.0,
)
TOKEN = SIGNER.sign(CLAIMS)


def refused(token, now=NOW, verifier=VERIFIER):
    with pytest.raises(PermitRefused) as refusal:
        verifier.verify(token, now)
    return refusal.value.refusal_code


def test_what_was_signed_is_what_is_read():
    assert VERIFIER.verify(TOKEN, NOW) == CLAIMS
    assert CLAIMS.effect_key == "r-1:3"


def test_a_permit_ends_at_its_expiry_and_not_a_moment_later():
    assert VERIFIER.verify(TOKEN, NOW + 14.999) == CLAIMS
    assert refused(TOKEN, NOW + 15.0) == "permit.expired"
    assert refused(TOKEN, float("nan")) == "permit.expired"


def test_a_permit_from_the_future_is_refused():
    assert refused(TOKEN, NOW - 2.0) == "permit.not_yet_valid"


def test_an_auditor_may_read_an_expired_permit():
    assert VERIFIER.verify(TOKEN, None) == CLAIMS


def test_another_key_signs_nothing():
    forged = PermitSigner(bytes(32)).sign(CLAIMS)
    assert refused(forged) == "permit.bad_signature"


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("ABab01-_.=/+ \n"))
def test_no_changed_character_survives(place, character):
    changed = TOKEN[:place] + character + TOKEN[place + 1 :]
    if changed != TOKEN:
        assert refused(changed) in ("permit.bad_signature", "permit.malformed")


@pytest.mark.parametrize(
    "odd", ["", ".", "a.b", "..", "a", TOKEN + ".", TOKEN + "=", "." + TOKEN, TOKEN * 400, None, 5, b"x.y"]
)
def test_what_is_no_token_is_refused_without_an_accident(odd):
    assert refused(odd) in ("permit.malformed", "permit.bad_signature")


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": "1"},
        {"ordinal": "3"},
        {"tenant": None},
        {"exp": "never"},
        {"scopes": "read"},
        {"obligations": [1]},
    ],
)
def test_signed_claims_of_another_shape_are_refused(change):
    encoded = orjson.dumps({**msgspec.to_builtins(CLAIMS), **change})
    signature = split(TOKEN)[1]
    token = join(encoded, SIGNER._key.sign(encoded).signature)
    assert refused(token) == "permit.malformed"
    assert refused(join(encoded, signature)) == "permit.bad_signature"


@pytest.mark.parametrize("field", ["tenant", "user", "session", "run", "ordinal", "tool", "args_digest"])
def test_a_permit_is_good_for_one_thing_only(field):
    right = {
        name: getattr(CLAIMS, name) for name in ("tenant", "user", "session", "run", "ordinal", "tool", "args_digest")
    }
    assert CLAIMS.require(**right) is CLAIMS
    wrong = {**right, field: 4 if field == "ordinal" else "other"}
    with pytest.raises(PermitRefused) as refusal:
        CLAIMS.require(**wrong)
    assert refusal.value.refusal_code == "permit.mismatch"
    assert field in refusal.value.reason


def test_a_permits_refusal_survives_the_bus():
    with pytest.raises(PermitRefused) as refusal:
        VERIFIER.verify(TOKEN, NOW + 60)
    assert refusal_from(refusal.value.as_dict()).refusal_code == "permit.expired"


def test_the_digest_of_arguments_does_not_depend_on_their_order():
    assert args_digest({"a": 1, "b": {"d": 2, "c": 3}}) == args_digest({"b": {"c": 3, "d": 2}, "a": 1})


@given(
    st.dictionaries(
        st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5) | st.booleans() | st.none(), max_size=4
    ),
    st.dictionaries(
        st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5) | st.booleans() | st.none(), max_size=4
    ),
)
def test_two_different_arguments_have_two_digests(one, other):
    same = orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
    assert (args_digest(one) == args_digest(other)) is same


@pytest.mark.parametrize(
    "value",
    [
        {"a": float("nan")},
        {"a": [float("inf")]},
        {"a": {"b": float("-inf")}},
        {1: 2},
        {"a": object()},
        {"a": 2**70},
        {"a": "\ud800"},
    ],
)
def test_what_json_cannot_say_exactly_has_no_digest(value):
    with pytest.raises(MalformedCommand):
        canonical_json(value)
