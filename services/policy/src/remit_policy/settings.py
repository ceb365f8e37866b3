"""What the policy service is told from outside."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import AliasChoices, Field, model_validator
from pydantic_settings import SettingsConfigDict

from remit_chassis.settings import ServiceSettings
from remit_policy.engine import DEADLINE_SECONDS


class PolicySettings(ServiceSettings):
    """Prefix REMIT_POLICY_; the permit key defaults to its place in the home directory."""

    model_config = SettingsConfigDict(env_prefix="REMIT_POLICY_", populate_by_name=True, extra="ignore")

    service_name: ClassVar[str] = "policy"

    engine: Literal["auto", "opa", "embedded"] = "auto"
    """`auto` asks OPA when there is an address for one, and otherwise the embedded engine."""
    opa_url: str | None = Field(default=None, validation_alias=AliasChoices("REMIT_OPA_URL", "opa_url"))
    opa_token_file: Path | None = Field(
        default=None, validation_alias=AliasChoices("REMIT_OPA_TOKEN_FILE", "opa_token_file")
    )
    """A file that holds the bearer token of OPA's API."""
    embedded_engines: int = Field(default=1, ge=1, le=64)
    """Child processes of the embedded engine. One fills a core at about 4,000 decisions a second."""
    engine_memory_bytes: int = Field(default=512 * 1024 * 1024, ge=128 * 1024 * 1024)
    """Address space of one child."""
    decision_deadline_seconds: float = Field(default=DEADLINE_SECONDS, gt=0)
    """After that a decision is a denial, and the child that was deciding is killed and replaced."""
    permit_key_file: Path = Path()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.permit_key_file == Path():
            self.permit_key_file = self.home / "secrets" / "permit.key"
        if self.engine == "opa" and not self.opa_url:
            raise ValueError("engine is `opa` without an address: set REMIT_OPA_URL, or use `auto` or `embedded`")
        return self
