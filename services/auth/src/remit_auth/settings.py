"""What the auth service is told from outside."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from remit_chassis.settings import ServiceSettings


class AuthSettings(ServiceSettings):
    """Prefix REMIT_AUTH_; key files default to their places in the home directory."""

    model_config = SettingsConfigDict(env_prefix="REMIT_AUTH_", populate_by_name=True, extra="ignore")

    service_name: ClassVar[str] = "auth"

    oidc_issuer: str | None = None
    """An outside issuer of tokens. The built-in one, which is for development, refuses to work beside it."""
    connections_per_user: int = Field(default=128, ge=1)
    """The cap of one user's live connections; the server itself lets 4096 of all together."""
    messages_per_second: int = Field(default=2000, ge=1)
    """What one user may say over all connections; who says more is cut off, and refused for a while."""
    issuer_key_file: Path = Path()
    callout_nkey_file: Path = Path()
    callout_issuer_file: Path = Path()
    callout_xkey_file: Path = Path()
    system_nkey_file: Path = Path()
    """Who may list and cut connections: given to no other service."""

    @model_validator(mode="after")
    def _keys_default_to_the_home(self) -> Self:
        secrets = self.home / "secrets"
        for field, place in {
            "issuer_key_file": secrets / "issuer.key",
            "callout_nkey_file": secrets / "nkeys" / "auth-callout.nk",
            "callout_issuer_file": secrets / "callout-issuer.nk",
            "callout_xkey_file": secrets / "callout-xkey.nk",
            "system_nkey_file": secrets / "nkeys" / "sys.nk",
        }.items():
            if getattr(self, field) == Path():
                setattr(self, field, place)
        return self
