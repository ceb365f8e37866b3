import io

import pytest

from remit_chassis.logs import REDACTED, Unfailing, redact


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


def test_a_log_whose_disk_is_full_raises_nothing():
    with io.TextIOWrapper(open("/dev/full", "wb", buffering=0), write_through=True) as full:
        log = Unfailing(full)
        assert log.write("lost\n") == 5
        log.flush()


def test_a_log_that_can_be_written_is_written(tmp_path):
    with open(tmp_path / "log", "w") as file:
        log = Unfailing(file)
        log.write("kept\n")
        log.flush()
        assert (tmp_path / "log").read_text() == "kept\n"
