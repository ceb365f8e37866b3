"""A credential that a server echoes does not get through, in whatever usual form."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_agent_runtime.toolhost.refusals import ToolRefused
from remit_agent_runtime.toolhost.scrub import PLACEHOLDER, Scrubber

SECRET = 'sk/live+Zm9v=ba r&<7>"é'
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60)


@pytest.mark.parametrize("prefix", ["", "a", "ab", "abc", "user:", "Bearer "])
@pytest.mark.parametrize("suffix", ["", "z", "zz", ":x"])
def test_base64_is_found_wherever_the_secret_begins_in_it(prefix: str, suffix: str) -> None:
    text = f"{prefix}{SECRET}{suffix}".encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for form in (encode(text).decode(), encode(text).decode().rstrip("=")):
            scrubbed = Scrubber(SECRET).text(f"auth={form}.")
            assert PLACEHOLDER in scrubbed
            assert len(scrubbed) < len(form)


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        SECRET.upper(),
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        html.escape(SECRET),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        "".join(f"%{byte:02X}" for byte in SECRET.encode()),
        SECRET[::-1],
    ],
)
def test_the_usual_forms_are_found_in_texts_keys_and_nested_values(form: str) -> None:
    scrubber = Scrubber(SECRET)
    clean = scrubber.clean({"a": [f"x{form}y", {form: 1}], form: None, "b": f"{form}{form}"})
    assert form not in json.dumps(clean, ensure_ascii=False)
    assert clean["a"][0] == f"x{PLACEHOLDER}y"


def test_a_secret_of_digits_is_found_in_a_number() -> None:
    assert Scrubber("12345678901").clean({"n": 12345678901, "m": 7}) == {"n": PLACEHOLDER, "m": 7}


def test_what_holds_no_secret_is_left_as_it_is() -> None:
    answer = {"t": "nothing here", "n": 1.5, "b": True, "z": None, "l": [1, "a", {"k": []}]}
    assert Scrubber(SECRET).clean(answer) == answer


def test_an_answer_nested_too_deeply_is_refused() -> None:
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ToolRefused) as refused:
        Scrubber(SECRET).clean(deep)
    assert refused.value.refusal_code == "tool.malformed_result"


@given(secret=SECRETS, before=st.text(max_size=20), after=st.text(max_size=20))
def test_the_plain_secret_never_survives(secret: str, before: str, after: str) -> None:
    scrubber = Scrubber(secret)
    scrubbed = scrubber.text(f"{before}{secret}{after}")
    assert secret not in scrubbed.replace(PLACEHOLDER, "\0")


@given(secret=SECRETS)
def test_an_answer_that_echoes_all_forms_is_clean_as_json(secret: str) -> None:
    raw = secret.encode()
    answer = {"h": f"Bearer {secret}", "b": base64.b64encode(raw).decode(), "u": quote(secret), "x": raw.hex()}
    dumped = orjson.dumps(Scrubber(secret).clean(answer)).decode()
    for form in (secret, base64.b64encode(raw).decode().rstrip("="), raw.hex()):
        assert form not in dumped.replace(PLACEHOLDER, "\0")
