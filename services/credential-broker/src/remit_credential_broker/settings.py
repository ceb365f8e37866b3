"""What the credential broker is told from outside."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from remit_chassis.settings import ServiceSettings

MAX_LEASE_SECONDS: Final = 30.0
"""The tool host opens a lease without asking again, so this bounds how long one outlives its revocation."""


class BrokerSettings(ServiceSettings):
    """Prefix REMIT_BROKER_; key files default to their places in the home directory."""

    model_config = SettingsConfigDict(env_prefix="REMIT_BROKER_", populate_by_name=True, extra="ignore")

    service_name: ClassVar[str] = "credential-broker"

    master_key: SecretStr | None = None
    """64 hex digits, for where a secret store puts it into the environment; without it `master_key_file` holds it."""
    master_key_file: Path = Path()
    broker_key_file: Path = Path()
    vault_file: Path = Path()
    public_dir: Path = Path()
    """Public keys: permit.pub, tool-host.pub and box/{service}.pub, in hex."""
    lease_seconds: float = Field(default=MAX_LEASE_SECONDS, gt=0, le=MAX_LEASE_SECONDS)
    probe_private_hosts: bool = False
    """Let `test-connection` reach loopback and private addresses. Users name the hosts: where tenants share the
    machine, this would let them feel their way around its network."""

    @model_validator(mode="after")
    def _keys_default_to_the_home(self) -> Self:
        for field, place in {
            "master_key_file": self.home / "secrets" / "master.key",
            "broker_key_file": self.home / "secrets" / "broker.key",
            "vault_file": self.home / "vault" / "vault.sqlite",
            "public_dir": self.home / "public",
        }.items():
            if getattr(self, field) == Path():
                setattr(self, field, place)
        return self
