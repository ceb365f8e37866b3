"""Which engine decides, and what a wrong setting says."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from remit_policy.__main__ import engine_for
from remit_policy.settings import PolicySettings


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch):
    for name in ("REMIT_HOME", "REMIT_OPA_URL", "REMIT_OPA_TOKEN_FILE", "REMIT_POLICY_ENGINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("engine", "opa_url", "chosen"),
    [
        ("auto", None, "embedded"),
        ("auto", "http://127.0.0.1:8181", "opa"),
        ("opa", "http://127.0.0.1:8181", "opa"),
        ("embedded", "http://127.0.0.1:8181", "embedded"),
    ],
)
async def test_the_engine_is_the_one_that_the_settings_choose(monkeypatch, engine, opa_url, chosen):
    monkeypatch.setenv("REMIT_POLICY_ENGINE", engine)
    if opa_url:
        monkeypatch.setenv("REMIT_OPA_URL", opa_url)
    assert engine_for(PolicySettings()).name == chosen


def test_opa_without_an_address_is_refused_with_the_way_out():
    with pytest.raises(ValidationError, match="REMIT_OPA_URL"):
        PolicySettings(engine="opa")


def test_the_permit_key_lies_in_the_home_unless_it_is_named(monkeypatch):
    assert PolicySettings(home=Path("/somewhere")).permit_key_file == Path("/somewhere/secrets/permit.key")
    monkeypatch.setenv("REMIT_POLICY_PERMIT_KEY_FILE", "/run/secrets/permit.key")
    assert PolicySettings().permit_key_file == Path("/run/secrets/permit.key")


@pytest.mark.parametrize(
    "change",
    [{"decision_deadline_seconds": 0}, {"embedded_engines": 0}, {"engine_memory_bytes": 1}, {"engine": "cedar"}],
)
def test_a_setting_that_could_not_work_is_refused(change):
    with pytest.raises(ValidationError):
        PolicySettings(**change)
