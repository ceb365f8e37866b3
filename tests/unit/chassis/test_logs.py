import pytest

from remit_chassis.logs import REDACTED, redact


@pytest.mark.parametrize(
    "name", ["token", "auth_token", "secret", "password", "permit", "sealed_secret", "api_key", "seed"]
)
def test_a_value_under_a_telling_name_is_never_logged(name):
    assert redact(None, "info", {name: "canary"})[name] == REDACTED


@pytest.mark.parametrize(
    "text",
    [
        "failed with Bearer canary-1234",
        "got eyJhbGciOiJFZDI1NTE5In0.eyJjYW5hcnkiOjF9.c2ln",
        "seed SUAGC3DKOVUM3FRTCWJIOAU7J2IRKPN3LLBZZJQLEQTSRIWF3CVKCANARY4",
        "key sk-canary12345",
    ],
)
def test_text_shaped_like_a_secret_is_cut_out_anywhere(text):
    logged = redact(None, "info", {"reason": text, "nested": {"deep": [text]}})
    assert "canary" not in str(logged).lower()
    assert "eyJhbGci" not in str(logged)


def test_plain_words_stay():
    assert redact(None, "info", {"reason": "run r-1 completed", "count": 3}) == {
        "reason": "run r-1 completed",
        "count": 3,
    }
