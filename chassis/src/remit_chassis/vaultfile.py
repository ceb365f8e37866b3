"""The vault's file: tenants' keys sealed under the master key, users' under their tenant's, secrets under users'.

Every value is AES-256-GCM with a random 12-byte nonce in front; the associated data names exactly what it is
(`remit-vault-v1|user-key|acme/u-1`), so no row can be moved to another tenant, user or name. A destroyed user key
leaves a tombstone: it never comes back, and neither does anything that was sealed under it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from remit_chassis.sqlitefaults import BUSY_OR_BROKEN_DISK, primary_code
from remit_contracts.errors import Absent, Tampered, Unavailable
from remit_contracts.identity import data_key_scope, label

KEY_BYTES: Final = 32
_NONCE_BYTES = 12
_MACHINE: Final = BUSY_OR_BROKEN_DISK | {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tenant_keys (
    tenant TEXT PRIMARY KEY, sealed BLOB NOT NULL, created_at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS user_keys (
    tenant TEXT NOT NULL, user_id TEXT NOT NULL, sealed BLOB, created_at TEXT NOT NULL, destroyed_at TEXT,
    PRIMARY KEY (tenant, user_id), CHECK ((sealed IS NULL) = (destroyed_at IS NOT NULL))) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secrets (
    tenant TEXT NOT NULL, owner TEXT NOT NULL, name TEXT NOT NULL, sealed BLOB NOT NULL, changed_at TEXT NOT NULL,
    PRIMARY KEY (tenant, owner, name)) WITHOUT ROWID;
"""


def load_or_create_master_key(path: Path) -> bytes:
    """The 32-byte key in a file of 64 hex digits, made with mode 0600 when there is none.

    Raises ValueError, naming the file and the way out, when others can read the file or it holds no such key, and
    OSError when none can be made: then nothing is left of it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return load_master_key(path)
    key = os.urandom(KEY_BYTES)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as fault:
        path.unlink()  # half a key would be taken for one that was damaged
        raise OSError(fault.errno, fault.strerror, str(path)) from fault
    return key


def load_master_key(path: Path) -> bytes:
    """The key in an existing file; raises ValueError as above, and FileNotFoundError."""
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ValueError(f"{path} has mode {mode:04o}: others could read the master key. Run: chmod 600 {path}")
    try:
        return parse_master_key(path.read_text(errors="replace"))
    except ValueError as fault:
        raise ValueError(f"{path} holds {fault}") from None


def parse_master_key(text: str) -> bytes:
    """The key that a text is; raises ValueError, whose words begin with `no key` and do not show the text."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"no key of {KEY_BYTES} bytes as {2 * KEY_BYTES} hex digits")
    return key


class VaultFile:
    """The vault in one SQLite file (mode 0600). Blocks; safe to call from several threads. Durable on return.

    A wrong master key, or a row that was altered or moved, is Tampered. A disk that is full or fails is Unavailable:
    the same may be asked again. `read_only` makes no key and changes nothing: what is missing is Absent, and what
    SQLite says of the file is raised as it is.
    """

    def __init__(
        self,
        path: Path,
        master_key: bytes,
        *,
        read_only: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._path = path
        self._master = master_key
        self._read_only = read_only
        self._clock = clock
        self._lock = RLock()
        if not read_only:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
        self._database = sqlite3.connect(
            f"{path.absolute().as_uri()}{'?mode=ro' if read_only else ''}",
            uri=True,
            check_same_thread=False,
            isolation_level=None,
        )
        if not read_only:
            try:
                self._prepare()
            except Unavailable:
                self._database.close()
                raise

    def _prepare(self) -> None:
        with self._alone():
            # A key that is used before it is on disk could be lost, and with it everything sealed under it.
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("PRAGMA secure_delete=ON")
            self._database.executescript(_SCHEMA)

    def user_key(self, tenant: str, user: str) -> bytes:
        """The user's data key (32 bytes), made at first use; raises Absent("absent.erased") once it was destroyed."""
        scope = data_key_scope(tenant, user)
        with self._alone():
            query = "SELECT sealed FROM user_keys WHERE tenant = ? AND user_id = ?"
            row = self._database.execute(query, (tenant, user)).fetchone()
            if row is None:
                sealed = _seal(self._tenant_key(tenant), os.urandom(KEY_BYTES), b"user-key", scope)
                self._create("user_keys (tenant, user_id, sealed, created_at)", tenant, user, sealed, self._now())
                row = self._database.execute(query, (tenant, user)).fetchone()
            if row[0] is None:
                raise Absent(f"the key of {tenant}/{user} was destroyed", code="absent.erased")
            return _open(self._tenant_key(tenant), row[0], b"user-key", scope)

    def destroy_user_key(self, tenant: str, user: str) -> bool:
        """Destroy the key and every secret of this owner, for ever; also of a user who has none yet.

        False when it was destroyed before. The bytes are overwritten in the database and its log; what the disk
        underneath, its snapshots or a backup keep is out of reach from here.
        """
        data_key_scope(tenant, user)
        with self._alone():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                changed = self._database.execute(
                    "INSERT INTO user_keys VALUES (?, ?, NULL, ?, ?) ON CONFLICT (tenant, user_id) "
                    "DO UPDATE SET sealed = NULL, destroyed_at = excluded.destroyed_at WHERE sealed IS NOT NULL",
                    (tenant, user, self._now(), self._now()),
                ).rowcount
                self._database.execute("DELETE FROM secrets WHERE tenant = ? AND owner = ?", (tenant, user))
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # a full disk ends it by itself
                    self._database.execute("ROLLBACK")
                raise
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return changed > 0

    def put_secret(self, tenant: str, owner: str, name: str, secret: bytes) -> None:
        """Keep a secret under the owner's key, replacing one of that name; the owner `system` is the tenant itself."""
        sealed = _seal(self.user_key(tenant, owner), secret, b"secret", _secret_scope(tenant, owner, name))
        with self._alone():
            self._database.execute(
                "INSERT OR REPLACE INTO secrets VALUES (?, ?, ?, ?, ?)", (tenant, owner, name, sealed, self._now())
            )

    def get_secret(self, tenant: str, owner: str, name: str) -> bytes:
        """The secret; raises Absent when there is none."""
        scope = _secret_scope(tenant, owner, name)
        with self._alone():
            row = self._database.execute(
                "SELECT sealed FROM secrets WHERE tenant = ? AND owner = ? AND name = ?", (tenant, owner, name)
            ).fetchone()
        if row is None:
            raise Absent(f"there is no secret {name!r} of {tenant}/{owner}")
        return _open(self.user_key(tenant, owner), row[0], b"secret", scope)

    def delete_secret(self, tenant: str, owner: str, name: str) -> bool:
        """Delete the secret and overwrite its bytes; False when there was none."""
        with self._alone():
            deleted = self._database.execute(
                "DELETE FROM secrets WHERE tenant = ? AND owner = ? AND name = ?", (tenant, owner, name)
            ).rowcount
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return deleted > 0

    def tenants(self) -> list[str]:
        """Tenants that have a key, in order: one is made before a tenant's first event or secret is kept."""
        with self._alone():
            return [str(row[0]) for row in self._database.execute("SELECT tenant FROM tenant_keys ORDER BY tenant")]

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread at a time, which learns of the machine's faults as Unavailable."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as fault:
                if self._read_only or primary_code(fault) not in _MACHINE:
                    raise
                raise Unavailable(f"the vault {self._path} cannot be read or written now: {fault}") from fault

    def _tenant_key(self, tenant: str) -> bytes:
        query = "SELECT sealed FROM tenant_keys WHERE tenant = ?"
        row = self._database.execute(query, (tenant,)).fetchone()
        if row is None:
            sealed = _seal(self._master, os.urandom(KEY_BYTES), b"tenant-key", tenant.encode())
            self._create("tenant_keys (tenant, sealed, created_at)", tenant, sealed, self._now())
            row = self._database.execute(query, (tenant,)).fetchone()
        return _open(self._master, row[0], b"tenant-key", tenant.encode())

    def _create(self, target: str, *values: object) -> None:
        """Insert unless another process was first: then its row stands."""
        if self._read_only:
            raise Absent("the vault holds no such key, and is open for reading only")
        marks = ", ".join("?" * len(values))
        self._database.execute(f"INSERT OR IGNORE INTO {target} VALUES ({marks})", values)  # noqa: S608 (names from code)

    def _now(self) -> str:
        return self._clock().isoformat()


def _secret_scope(tenant: str, owner: str, name: str) -> bytes:
    return data_key_scope(tenant, owner) + b"/" + label(name, kind="secret's name").encode()


def _bound(kind: bytes, scope: bytes) -> bytes:
    return b"remit-vault-v1|%s|%s" % (kind, scope)


def _seal(key: bytes, plain: bytes, kind: bytes, scope: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, _bound(kind, scope))


def _open(key: bytes, sealed: bytes, kind: bytes, scope: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound(kind, scope))
    except (InvalidTag, ValueError):
        what = f"{kind.decode()} of {scope.decode()}"
        raise Tampered(f"the {what} does not open: the master key is another one, or the row was altered") from None
