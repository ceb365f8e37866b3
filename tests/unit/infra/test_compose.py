"""docker-compose.yml, looked at as a document: no Docker engine ran, so what one would say of it is not known here."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit_contracts.subjects import SERVICES
from remit_infra.__main__ import main
from remit_infra.deployment import deploy

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PARTS: dict[str, dict[str, Any]] = COMPOSE["services"]
DEPLOYED = "${REMIT_DEPLOY:-./deploy}/"


def test_it_holds_the_engines_and_every_service() -> None:
    assert PARTS.keys() == {"nats", "opa", "postgres", "mongo", "streams", *SERVICES}


@pytest.mark.parametrize("part", PARTS)
def test_no_part_has_a_root_user_a_capability_or_a_writable_system(part: str) -> None:
    said = PARTS[part]
    assert said["user"] == "${REMIT_UID:-1000}:${REMIT_GID:-1000}"
    assert said["read_only"] is True
    assert said["cap_drop"] == ["ALL"]
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & said.keys()
    assert not any("docker.sock" in str(volume) for volume in said.get("volumes", ()))


@pytest.mark.parametrize("part", PARTS)
def test_what_is_kept_of_a_parts_output_is_bounded(part: str) -> None:
    assert PARTS[part]["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("part", sorted(PARTS.keys() - {"streams"}))
def test_every_part_that_stays_has_a_health_check(part: str) -> None:
    check = PARTS[part]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= check.keys()


def test_only_the_bus_is_published_and_only_on_loopback() -> None:
    published = {part: said["ports"] for part, said in PARTS.items() if "ports" in said}
    assert published == {"nats": ["127.0.0.1:${REMIT_NATS_PORT:-4222}:4222"]}


@pytest.mark.parametrize("part", PARTS)
def test_whatever_is_waited_for_can_be_waited_for(part: str) -> None:
    for other, how in PARTS[part].get("depends_on", {}).items():
        lasts = other != "streams"
        assert how == {"condition": "service_healthy" if lasts else "service_completed_successfully"}


def test_the_agent_runtime_ends_before_what_its_open_calls_need() -> None:
    assert {"auth", "policy", "credential-broker"} <= PARTS["agent-runtime"]["depends_on"].keys()


@pytest.mark.parametrize("part", PARTS)
def test_networks_and_secrets_that_are_used_are_declared(part: str) -> None:
    said = PARTS[part]
    assert set(said["networks"]) <= COMPOSE["networks"].keys()
    used = {secret if isinstance(secret, str) else secret["source"] for secret in said.get("secrets", ())}
    assert used <= COMPOSE["secrets"].keys()


def test_databases_are_on_a_network_without_a_way_out() -> None:
    assert COMPOSE["networks"]["stores"] == {"internal": True}
    assert {part for part in ("postgres", "mongo") if PARTS[part]["networks"] == ["stores"]} == {"postgres", "mongo"}


def test_no_secret_is_a_value_in_the_environment() -> None:
    for said in PARTS.values():
        for name, value in said.get("environment", {}).items():
            assert name.endswith("_FILE") or not any(word in name for word in ("PASSWORD", "TOKEN", "KEY", "SECRET"))
            assert "@" not in value


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_given_no_other_services_secret(service: str) -> None:
    given = {secret["target"].removeprefix("/home/remit/secrets/") for secret in PARTS[service]["secrets"]}
    common = {f"nkeys/{service}.nk", f"relay/{service}.key", f"box/{service}.key", "postgres.dsn"}
    own = {
        "auth": {"nkeys/auth-callout.nk", "nkeys/sys.nk", "callout-issuer.nk", "callout-xkey.nk", "issuer.key"},
        "policy": {"permit.key", "opa.token"},
        "credential-broker": {"master.key", "broker.key"},
        "agent-runtime": {"tool-host.key"},
        "audit": {"ledger.key"},
    }
    assert given == common | own[service]


def test_what_is_mounted_is_what_deploying_makes(tmp_path: Path) -> None:
    made = deploy(tmp_path / "deploy")
    assert len(made) > len(SERVICES)
    for secret in COMPOSE["secrets"].values():
        file = tmp_path / "deploy" / secret["file"].removeprefix(DEPLOYED)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    for said in PARTS.values():
        for volume in said.get("volumes", ()):
            if volume.startswith(DEPLOYED):
                assert (tmp_path / "deploy" / volume.removeprefix(DEPLOYED).split(":")[0]).exists(), volume
    assert (ROOT / "infra/postgres/init.sh").stat().st_mode & 0o111


def test_deploying_again_makes_no_secret_anew(tmp_path: Path) -> None:
    deploy(tmp_path / "deploy")
    before = {file: file.read_bytes() for file in (tmp_path / "deploy" / "secrets").rglob("*") if file.is_file()}
    assert deploy(tmp_path / "deploy") == []
    assert {file: file.read_bytes() for file in before} == before


def test_a_wrong_use_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deplay"]) == 2
    assert "usage: python -m remit_infra deploy DIR" in capsys.readouterr().err
