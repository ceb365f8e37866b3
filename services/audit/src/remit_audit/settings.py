"""What the audit service is told from outside."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import AliasChoices, Field, model_validator
from pydantic_settings import SettingsConfigDict

from remit_chassis.settings import ServiceSettings


class AuditSettings(ServiceSettings):
    """Prefix REMIT_AUDIT_; files default to their places in the home directory."""

    model_config = SettingsConfigDict(env_prefix="REMIT_AUDIT_", populate_by_name=True, extra="ignore")

    service_name: ClassVar[str] = "audit"

    mongo_url: str | None = Field(default=None, validation_alias=AliasChoices("REMIT_MONGO_URL", "mongo_url"))
    """Where read models are kept; without it trails are read from the ledger itself."""
    ledger_dir: Path = Path()
    ledger_key_file: Path = Path()
    permit_public_file: Path = Path()
    stores_dir: Path = Path()
    """Where the services' event stores lie, when they are files of this machine: `check` reads and compares them.
    Elsewhere a store is compared by its head, which its chain makes stand for all of it."""

    discover_seconds: float = 2.0
    """How often the bus is asked for streams, and each stream for its state."""
    heads_seconds: float = 5.0
    """How often every service is asked how far its log goes."""
    missing_seconds: float = Field(default=10.0, gt=0)
    """How long events may stay away, asked for again meanwhile, before that is an alarm."""
    silent_seconds: float = 30.0
    """How long a service may not answer before that is an alarm."""

    @model_validator(mode="after")
    def _files_default_to_the_home(self) -> Self:
        for field, place in {
            "ledger_dir": self.home / "ledger",
            "ledger_key_file": self.home / "secrets" / "ledger.key",
            "permit_public_file": self.home / "public" / "permit.pub",
            "stores_dir": self.home / "store",
        }.items():
            if getattr(self, field) == Path():
                setattr(self, field, place)
        return self
