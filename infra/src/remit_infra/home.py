"""The home directory: all that one installation of Remit keeps on a machine, and where each thing lies.

HomeRefused   Refusal, code "home": not a Remit home, one of a newer version, or one whose files cannot be trusted
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from remit_contracts.errors import Refusal
from remit_contracts.identity import PLATFORM_TENANT, is_label
from remit_infra.files import write_atomically
from remit_infra.secrets import SECRETS, provision

VERSION: Final = 1
DIRECTORIES: Final = (
    "nats",
    "nats/js",
    "mongo",
    "store",
    "vault",
    "ledger",
    "agents",
    "tools",
    "sources",
    "documents",
    "logs",
)


class HomeRefused(Refusal):
    """This directory cannot be used as a home."""

    code = "home"


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of a home directory. Nothing but `create` and `open` touches the disk to make one."""

    path: Path

    @classmethod
    def create(cls, path: Path, *, at: datetime | None = None) -> Home:
        """Make a home with all its secrets, or finish one whose making was interrupted; an existing one is opened.

        `home.json` is written last: where it exists, nothing is ever made again.
        """
        home = cls(path.absolute())
        if home.marker.exists():
            return cls.open(path)
        _refuse_foreign(home.path)
        home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.path.chmod(0o700)
        for name in DIRECTORIES:
            (home.path / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        provision(home.secrets, home.public)
        made = {"version": VERSION, "created_at": (at or datetime.now(UTC)).isoformat(timespec="seconds")}
        write_atomically(home.marker, orjson.dumps(made))
        return home

    @classmethod
    def open(cls, path: Path) -> Home:
        """A home to run; raises HomeRefused as `open_to_read` does, and when it is incomplete or open to others."""
        home = cls.open_to_read(path)
        _check_secrets(home)
        return home

    @classmethod
    def open_to_read(cls, path: Path) -> Home:
        """An existing home whose files are looked at: a secret may lie elsewhere, as a master key in the environment.

        Raises HomeRefused when it is none, or newer than this Remit.
        """
        home = cls(path.absolute())
        version = _version_of(home, path)
        if version > VERSION:
            raise HomeRefused(
                f"{path} was made by a newer Remit (home version {version}, this one knows {VERSION}): upgrade Remit"
            )
        return home

    @property
    def marker(self) -> Path:
        """`home.json`: version and instant of making."""
        return self.path / "home.json"

    @property
    def lock(self) -> Path:
        """Locked by the running `remit up`, and holds its process id."""
        return self.path / "lock"

    @property
    def endpoints_file(self) -> Path:
        """There while everything is ready."""
        return self.path / "endpoints.json"

    @property
    def secrets(self) -> Path:
        """Mode 0700; files 0600."""
        return self.path / "secrets"

    @property
    def public(self) -> Path:
        """The public halves, to be handed to anybody."""
        return self.path / "public"

    @property
    def bus(self) -> Path:
        """Configuration and streams of the bus server."""
        return self.path / "nats"

    @property
    def mongo(self) -> Path:
        """Read models."""
        return self.path / "mongo"

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.path / "logs"

    def nkey_file(self, name: str) -> Path:
        """Seed file of a bus user: a service, `auth-callout`, `installer` or `sys`."""
        return self.secrets / "nkeys" / f"{name}.nk"

    def public_nkeys(self) -> dict[str, str]:
        """Public nkey by user name, with those of the callout's issuer and xkey."""
        nkeys: dict[str, str] = orjson.loads((self.public / "nkeys.json").read_bytes())
        return nkeys

    def tenants(self) -> list[str]:
        """Tenants that any service keeps events of, and the platform itself: known while nothing runs."""
        stores = (self.path / "store").glob("*/*.sqlite")
        return sorted({PLATFORM_TENANT, *(store.stem for store in stores if is_label(store.stem))})

    def write_endpoints(self, endpoints: Mapping[str, Any]) -> None:
        """Say where everything listens; readers see the old file or the new one, never half of one."""
        write_atomically(self.endpoints_file, orjson.dumps(dict(endpoints), option=orjson.OPT_INDENT_2))

    def endpoints(self) -> dict[str, Any] | None:
        """What `write_endpoints` said, or None when nothing is up."""
        try:
            endpoints: dict[str, Any] = orjson.loads(self.endpoints_file.read_bytes())
        except FileNotFoundError:
            return None
        return endpoints

    def remove_endpoints(self) -> None:
        """Say that nothing listens any more."""
        self.endpoints_file.unlink(missing_ok=True)


def _refuse_foreign(path: Path) -> None:
    ours = {"secrets", "public", "lock", *(name.partition("/")[0] for name in DIRECTORIES)}
    if path.exists() and not path.is_dir():
        raise HomeRefused(f"{path} is no directory")
    foreign = sorted({entry.name for entry in path.iterdir()} - ours) if path.exists() else []
    if foreign:
        named = ", ".join(foreign[:3])
        raise HomeRefused(f"{path} holds other files ({named}) and is no Remit home: name an empty directory")


def _version_of(home: Home, named: Path) -> int:
    try:
        version = orjson.loads(home.marker.read_bytes())["version"]
    except FileNotFoundError:
        raise HomeRefused(f"{named} is no Remit home: `remit up --home {named}` makes one") from None
    except NotADirectoryError:
        raise HomeRefused(f"{named} is no directory: name a home's directory") from None
    except OSError as fault:
        raise HomeRefused(f"{home.marker} cannot be read: {fault.strerror}") from None
    except (ValueError, KeyError, TypeError):
        version = None
    if type(version) is not int:
        raise HomeRefused(f"{home.marker} is damaged: restore it from a backup")
    return version


def _check_secrets(home: Home) -> None:
    for name in SECRETS:
        file = home.secrets / name
        try:
            status = os.lstat(file)
        except (FileNotFoundError, NotADirectoryError):
            raise HomeRefused(f"{file} is missing: restore it from a backup, a new one would open nothing") from None
        if not stat.S_ISREG(status.st_mode):
            raise HomeRefused(f"{file} is no plain file")
        if status.st_mode & 0o077:
            raise HomeRefused(f"{file} may be read by others: chmod 600 {file}")
