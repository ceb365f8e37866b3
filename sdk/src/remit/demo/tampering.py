"""Changes one byte of one stored event in a copy of a home, as somebody with access to the disk would."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import NamedTuple


class Altered(NamedTuple):
    """Which record was changed."""

    service: str
    tenant: str
    notification_id: int


def alter_a_copy(home: Path, copy: Path, *, service: str, tenant: str) -> Altered:
    """Copy a stopped home and flip one bit of the ciphertext of the newest event of that service and tenant."""
    shutil.copytree(home, copy, symlinks=True)
    database = sqlite3.connect(copy / "store" / service / f"{tenant}.sqlite")
    try:
        for (trigger,) in database.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            database.execute(f'drop trigger "{trigger}"')
        notification_id, state = database.execute(
            "select rowid, state from stored_events order by rowid desc limit 1"
        ).fetchone()
        changed = bytes(state[:-1]) + bytes([state[-1] ^ 1])
        database.execute("update stored_events set state = ? where rowid = ?", (changed, notification_id))
        database.commit()
    finally:
        database.close()
    return Altered(service, tenant, int(notification_id))
