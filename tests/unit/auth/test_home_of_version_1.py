"""A home whose sessions were recorded before they named their issuer: it is read, goes on, and stays what it was.

`home_of_version_1/` was written by that version: a tenant, the user `ann`, two sessions of hers of which the first was
ended ("lost laptop"). Its master key is 32 zero bytes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from unit.auth.installations import Installation, installation

from remit_auth.domain import Session
from remit_contracts.errors import Absent

THEN = Path(__file__).with_name("home_of_version_1")
ENDED, OPEN = "s-aaaaaaaaaaaaaaac", "s-aaaaaaaaaaaaaaae"


async def recorded(at: Installation) -> list[tuple[str, str, bytes]]:
    """(topic, user, hash) of every event."""
    return [(found.topic, found.user, found.hash) for found in await at.store_of("acme").read(1, 100)]


async def test_sessions_of_version_1_stand_name_the_built_in_issuer_and_go_on(tmp_path: Path) -> None:
    shutil.copytree(THEN, tmp_path, dirs_exist_ok=True)
    async with installation(tmp_path) as at:
        store = at.store_of("acme")
        before = await recorded(at)
        assert [topic for topic, _, _ in before][-3:] == ["auth.Session.Opened"] * 2 + ["auth.Session.Ended"]

        ended = await store.load(Session, Session.id_of("acme", ENDED))
        still = await store.load(Session, Session.id_of("acme", OPEN))
        assert (ended.issuer, ended.ended, still.issuer, still.ended) == ("remit-dev", True, "remit-dev", False)

        await at.accounts.catch_up("acme")
        assert set(at.directory.of("acme").sessions) == {OPEN}
        await at.accounts.end_session(tenant="acme", session_id=OPEN, reason="moved on")
        with pytest.raises(Absent):
            await at.accounts.end_session(tenant="acme", session_id=ENDED, reason="again")
        issued = await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)

        assert (await recorded(at))[: len(before)] == before, "what was recorded is not rewritten"
        assert await store.verify() is None
        newest = (await store.read(len(before) + 2, 1))[0]
        opened = await store.decode(newest)
        assert (newest.topic, opened.session_id, opened.issuer) == ("auth.Session.Opened", issued.session, "remit-dev")
