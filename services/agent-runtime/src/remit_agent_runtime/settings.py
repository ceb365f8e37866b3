"""What the agent runtime is told from outside, prefix REMIT_AGENT_RUNTIME_."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import model_validator
from pydantic_settings import SettingsConfigDict

from remit_chassis.settings import ServiceSettings


class AgentRuntimeSettings(ServiceSettings):
    """Paths default to their places in the home; keys of model providers are read from the environment under their
    own names."""

    model_config = SettingsConfigDict(env_prefix="REMIT_AGENT_RUNTIME_", populate_by_name=True, extra="ignore")

    service_name: ClassVar[str] = "agent-runtime"

    tool_host_key_file: Path = Path()
    """The tool host's X25519 seed: handed on by name, never read here."""
    permit_public_key_file: Path = Path()
    broker_public_key_file: Path = Path()
    tool_host_threads: int = 4

    default_model: str = "default"
    """What `model: default` means: PROVIDER:NAME, `scripted`, or `default` for the first provider with a key."""

    runs_in_hand: int = 2_000
    """Runs accepted and not ended, before new ones are refused."""
    runs_in_hand_per_user: int = 200
    runs_at_once: int = 32
    runs_at_once_per_user: int = 8
    tool_calls_at_once: int = 64
    """Many in flight share a fsync, a relay's window and a wake-up: 64 gave three times the calls a second of 8."""
    tool_calls_at_once_per_user: int = 4
    """What keeps one user's loops from slowing another. The prototype: a quiet user's p99 was 1.3 times its p99 alone
    beside 3 calls of the other, 1.8 times beside 7, 2.8 times beside 15."""
    tool_calls_waiting: int = 4_000
    tool_calls_waiting_per_user: int = 500

    @model_validator(mode="after")
    def _default_own_files_to_the_home(self) -> Self:
        for field, place in {
            "tool_host_key_file": self.home / "secrets" / "tool-host.key",
            "permit_public_key_file": self.home / "public" / "permit.pub",
            "broker_public_key_file": self.home / "public" / "broker.pub",
        }.items():
            if getattr(self, field) == Path():
                setattr(self, field, place)
        return self
