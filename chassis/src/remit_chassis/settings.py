"""What every service is told from outside: files, addresses and bounds, by environment or by the home directory.

A service subclasses ServiceSettings with its own prefix (`REMIT_POLICY_`). Secrets are never values here, only paths
of files with mode 0600; each defaults to its place in the home directory, and a deployment with secrets as mounted
files names them one by one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import AliasChoices, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    import ssl


class ServiceSettings(BaseSettings):
    """Settings that all services share. `service_name` is the service's token in subjects."""

    model_config = SettingsConfigDict(populate_by_name=True, extra="ignore")

    service_name: ClassVar[str] = ""

    home: Path = Field(default=Path(".remit"), validation_alias=AliasChoices("REMIT_HOME", "home"))
    nats_url: str = Field(default="nats://127.0.0.1:4222", validation_alias=AliasChoices("REMIT_NATS_URL", "nats_url"))
    nats_ca_file: Path | None = Field(default=None, validation_alias=AliasChoices("REMIT_NATS_CA_FILE", "nats_ca_file"))
    postgres_dsn_file: Path | None = None
    """A file that holds the DSN of PostgreSQL; without it the event store is SQLite under `store_dir`."""
    log_level: str = Field(default="info", validation_alias=AliasChoices("REMIT_LOG_LEVEL", "log_level"))
    metrics_port: int | None = None
    """Loopback port of a Prometheus endpoint; none by default, the bus answers `metrics` as well."""
    drain_seconds: float = 10.0

    nkey_file: Path = Path()
    relay_key_file: Path = Path()
    box_key_file: Path = Path()
    store_dir: Path = Path()

    @model_validator(mode="after")
    def _default_to_the_home(self) -> Self:
        name = type(self).service_name
        for field, place in {
            "nkey_file": self.home / "secrets" / "nkeys" / f"{name}.nk",
            "relay_key_file": self.home / "secrets" / "relay" / f"{name}.key",
            "box_key_file": self.home / "secrets" / "box" / f"{name}.key",
            "store_dir": self.home / "store" / name,
        }.items():
            if getattr(self, field) == Path():
                setattr(self, field, place)
        return self

    def nats_tls(self) -> ssl.SSLContext | None:
        """What every connection to the bus is verified by: the authorities in `nats_ca_file`; None for one without TLS.

        Raises OSError (ssl.SSLError is one) for a file that holds none.
        """
        if self.nats_ca_file is None:
            return None
        import ssl

        return ssl.create_default_context(cafile=str(self.nats_ca_file))


def read_hex_secret(path: Path, *, length_bytes: int = 32) -> bytes:
    """The key in a file as hex; raises ValueError naming the file and the way out, never its content."""
    try:
        raw = bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: restore it from a backup") from None
    except OSError as fault:
        raise ValueError(f"{path} cannot be read: {fault.strerror}") from None
    except ValueError:
        raise ValueError(f"{path} holds no hex digits: restore it from a backup") from None
    if len(raw) != length_bytes:
        raise ValueError(f"{path} holds {len(raw)} bytes where {length_bytes} belong: restore it from a backup")
    return raw
