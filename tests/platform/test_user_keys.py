"""One user's data under one user's key, on a running platform, attacked with a service's own key and with the files."""

from __future__ import annotations

import sqlite3
from base64 import b64decode
from contextlib import closing

import msgspec
import orjson
import pytest
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, SealedBox

from remit_agent_runtime.domain import Run
from remit_chassis.eventstore.mapper import EncryptingMapper
from remit_contracts import subjects
from remit_contracts.errors import Tampered
from remit_contracts.events import Envelope

COLUMNS = "rowid, originator_id, originator_version, topic, state, user_id, recorded_at, prev_hash, hash"


class TakenOver:
    """The audit service's key and box, in an attacker's hands."""

    def __init__(self, platform, nc):
        self.nc = nc
        self.box = SealedBox(PrivateKey(bytes.fromhex((platform.home / "secrets/box/audit.key").read_text().strip())))

    async def sealed_key(self, tenant, user, service="audit"):
        subject = subjects.rpc(tenant, user, "credential-broker", "user-key")
        reply = f"{subjects.service_inbox('audit')}.credential-broker.{self.nc._nuid.next().decode()}"
        heard = await self.nc.subscribe(reply)
        await self.nc.publish(subject, orjson.dumps({"service": service}), reply=reply)
        answer = orjson.loads((await heard.next_msg(10)).data)
        await heard.unsubscribe()
        return b64decode(answer["sealed_key"])

    async def key(self, tenant, user):
        return self.box.decrypt(await self.sealed_key(tenant, user))


def events_of(platform, tenant, user):
    """What the runtime's file holds of a user."""
    path = platform.home / "store" / "agent-runtime" / f"{tenant}.sqlite"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute(f"SELECT {COLUMNS} FROM stored_events WHERE user_id = ?", (user,)).fetchall()
    return [
        Envelope(
            service="agent-runtime",
            tenant=tenant,
            user=row[5],
            notification_id=row[0],
            originator_id=row[1],
            originator_version=row[2],
            topic=row[3],
            recorded_at=row[6],
            state=row[4],
            prev_hash=row[7],
            hash=row[8],
        )
        for row in rows
    ]


async def test_every_user_has_a_key_of_their_own_also_under_one_id_in_two_tenants(platform):
    async with platform.client("acme/analyst") as ann, platform.client("globex/analyst") as gus:
        whose = [
            (tenant, user)
            for tenant in ("acme", "globex")
            for user in (ann.session.caller.user, gus.session.caller.user, "system")
        ]
    async with platform.service_connection("audit") as nc:
        attacker = TakenOver(platform, nc)
        keys = [await attacker.key(tenant, user) for tenant, user in whose]
    assert len({*keys}) == len(keys) == 6
    assert {len(key) for key in keys} == {32}


async def test_one_users_events_do_not_open_with_anothers_key_nor_as_anothers(platform):
    async with platform.client("acme/analyst") as ann, platform.client("acme/administrator") as bob:
        await ann.run("helpdesk", "the canary of ann, 77c1")
        ann_id, bob_id = ann.session.caller.user, bob.session.caller.user
    async with platform.service_connection("audit") as nc:
        attacker = TakenOver(platform, nc)
        anns, bobs = await attacker.key("acme", ann_id), await attacker.key("acme", bob_id)
        foreign = await attacker.key("globex", ann_id)
    mapper, elsewhere = EncryptingMapper("acme"), EncryptingMapper("globex")
    found = events_of(platform, "acme", ann_id)
    assert len(found) > 3
    for envelope in found:
        assert b"77c1" not in envelope.state
        assert isinstance(mapper.open(envelope, anns), Run.Event)
        for opener, key in ((mapper, bobs), (mapper, foreign), (elsewhere, anns)):
            with pytest.raises(Tampered):
                opener.open(envelope, key)
        with pytest.raises(Tampered):  # as if it had been another's all along
            mapper.open(msgspec.structs.replace(envelope, user=bob_id), anns)
        with pytest.raises(Tampered):
            mapper.open(msgspec.structs.replace(envelope, originator_version=envelope.originator_version + 1), anns)


async def test_a_key_asked_for_in_anothers_name_opens_in_that_ones_box_only(platform):
    async with platform.client("acme/analyst") as ann:
        user = ann.session.caller.user
    async with platform.service_connection("audit") as nc:
        attacker = TakenOver(platform, nc)
        sealed = await attacker.sealed_key("acme", user, service="policy")
        with pytest.raises(CryptoError):
            attacker.box.decrypt(sealed)


async def test_one_idempotency_key_of_two_users_is_two_runs(platform):
    async with platform.client("acme/analyst") as ann, platform.client("acme/administrator") as bob:
        async with platform.client("globex/analyst") as gus:
            started = [
                await client.start("analyst", "how many flights", idempotency_key="k-1") for client in (ann, bob, gus)
            ]
            again = await ann.start("analyst", "how many flights", idempotency_key="k-1")
        assert len({*started}) == 3
        assert again == started[0]
        assert started[0] not in str(await bob.runs())
