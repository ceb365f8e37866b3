"""The record as its files have it, read beside the platform and without its recorders."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from remit_audit.ledger_file import COLUMNS, envelope_of, open_for_reading
from remit_audit.states import open_state
from remit_chassis.vaultfile import VaultFile, load_master_key
from remit_contracts.events import Envelope
from remit_contracts.subjects import SERVICES

RUNTIME = "agent-runtime"
ACCEPTED = "runtime.Run.Accepted"
COMPLETED = "runtime.Run.Completed"
ENDS = (COMPLETED, "runtime.Run.Failed", "runtime.Run.Cancelled")
CALL_AUTHORIZED = "runtime.Run.ToolCallAuthorized"
CALL_DENIED = "runtime.Run.ToolCallDenied"
CALL_COMPLETED = "runtime.Run.ToolCallCompleted"
CALL_UNKNOWN = "runtime.Run.ToolCallUnknown"

_STORE = (
    "rowid, user_id, originator_id, originator_version, topic, recorded_at, state, prev_hash, hash FROM stored_events"
)


class Record:
    """The stores and ledgers of one home; each question opens the files anew."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def tenants(self) -> list[str]:
        """Tenants with runs."""
        return sorted(path.stem for path in (self.home / "store" / RUNTIME).glob("*.sqlite") if path.stem != "platform")

    def services(self, tenant: str) -> list[str]:
        """Services with a store in the tenant."""
        return [service for service in SERVICES if self._store(service, tenant).exists()]

    def store(self, service: str, tenant: str) -> list[Envelope]:
        """Every event of a store in order, as it stands."""
        rows = self._ask(self._store(service, tenant), f"SELECT {_STORE} ORDER BY rowid")
        return [envelope_of(tenant, (service, *row)) for row in rows]

    def ledger(self, tenant: str) -> list[Envelope]:
        """Every event of a ledger in its order."""
        rows = self._ask(self._ledger(tenant), f"SELECT {COLUMNS} FROM entries ORDER BY idx")
        return [envelope_of(tenant, row) for row in rows]

    def heads(self, tenant: str) -> dict[str, int]:
        """Number of the last event of each store."""
        asked = "SELECT max(rowid) FROM stored_events"
        found = {service: self._ask(self._store(service, tenant), asked) for service in self.services(tenant)}
        return {service: rows[0][0] or 0 for service, rows in found.items() if rows}

    def ledger_heads(self, tenant: str) -> dict[str, int]:
        """Number of the last event of each service in the ledger."""
        asked = "SELECT service, max(notification_id) FROM entries GROUP BY service"
        return dict(self._ask(self._ledger(tenant), asked)) if self._ledger(tenant).exists() else {}

    def open_runs(self) -> set[str]:
        """Runs accepted and not ended, of all tenants."""
        marks = ", ".join("?" * len(ENDS))
        ended = f"SELECT originator_id FROM stored_events WHERE topic IN ({marks})"
        asked = f"SELECT originator_id FROM stored_events WHERE topic = ? EXCEPT {ended}"
        found = [self._ask(self._store(RUNTIME, tenant), asked, ACCEPTED, *ENDS) for tenant in self.tenants()]
        return {run for rows in found for (run,) in rows}

    def open_calls(self) -> int:
        """Tool calls authorised and without an outcome, of all tenants."""
        asked = "SELECT sum(CASE WHEN topic = ? THEN 1 ELSE -1 END) FROM stored_events WHERE topic IN (?, ?, ?)"
        topics = (CALL_AUTHORIZED, CALL_AUTHORIZED, CALL_COMPLETED, CALL_UNKNOWN)
        found = [self._ask(self._store(RUNTIME, tenant), asked, *topics) for tenant in self.tenants()]
        return sum(rows[0][0] or 0 for rows in found if rows)

    def completed_since(self, tenant: str, number: int) -> bool:
        """Whether a run that was accepted after that event has completed."""
        asked = (
            "SELECT 1 FROM stored_events WHERE topic = ? AND rowid > ? AND originator_id IN "
            "(SELECT originator_id FROM stored_events WHERE topic = ? AND rowid > ?) LIMIT 1"
        )
        return bool(self._ask(self._store(RUNTIME, tenant), asked, COMPLETED, number, ACCEPTED, number))

    def opened(self, envelopes: Iterable[Envelope]) -> list[tuple[Envelope, dict[str, Any]]]:
        """Each event with its fields, of a stopped home."""
        vault = VaultFile(
            self.home / "vault" / "vault.sqlite",
            load_master_key(self.home / "secrets" / "master.key"),
            read_only=True,
        )
        try:
            keys: dict[str, bytes] = {}
            found = []
            for envelope in envelopes:
                if envelope.user not in keys:
                    keys[envelope.user] = vault.user_key(envelope.tenant, envelope.user)
                found.append((envelope, open_state(envelope, keys[envelope.user])))
            return found
        finally:
            vault.close()

    def _store(self, service: str, tenant: str) -> Path:
        return self.home / "store" / service / f"{tenant}.sqlite"

    def _ledger(self, tenant: str) -> Path:
        return self.home / "ledger" / f"{tenant}.sqlite"

    def _ask(self, path: Path, query: str, *values: Any) -> list[Any]:
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
                return db.execute(query, values).fetchall()
        except sqlite3.OperationalError as fault:
            if "no such table" in str(fault):  # the file is being made
                return []
            # Its writer was just killed: read a copy, and recover nothing in its place.
            with closing(open_for_reading(path, stopped=True)) as copy:
                return copy.execute(query, values).fetchall()
