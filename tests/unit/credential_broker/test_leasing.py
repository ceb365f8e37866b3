"""A permit becomes one lease, for exactly whom and what it states; whatever else is tried is refused and recorded."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import OperationalError
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey
from unit.credential_broker.brokers import ALICE, BOB, CANARY, GUS, RUN, Broker, Clocks, running

from remit_chassis.permits import PermitSigner
from remit_contracts.errors import Absent, MalformedCommand, Refusal, Unavailable
from remit_contracts.identity import Caller
from remit_contracts.leases import LeaseRefused
from remit_credential_broker.leases import Lease


async def code_of(broker: Broker, permit: str, caller: Caller = ALICE, **changes: Any) -> str:
    """The code with which this is refused; it was recorded, once, as it was said."""
    before = await broker.refusals(caller.tenant)
    with pytest.raises(LeaseRefused) as refusal:
        await broker.lease(permit, caller, **changes)
    code = refusal.value.refusal_code
    assert await broker.refusals(caller.tenant) == [*before, code]
    return code


async def test_a_lease_names_all_that_the_permit_states_and_holds_the_users_secret(broker: Broker) -> None:
    await broker.connect()
    claims = broker.claims()
    lease = await broker.lease(broker.policy.sign(claims))
    content = broker.opened(lease)
    assert (content.tenant, content.user, content.session, content.run) == ("acme", "u-alice", "s-1", RUN)
    assert (content.ordinal, content.tool, content.connection, content.jti) == (1, "weather-desk", "desk", claims.jti)
    assert (content.secret, content.hosts, content.scopes) == (CANARY, ("127.0.0.1:8080",), ("read",))
    assert content.expires_at == broker.clocks.now.timestamp() + 30 == lease.expires_at.timestamp()
    assert content.lease == lease.lease_id


async def test_nobody_but_the_tool_host_opens_a_lease(broker: Broker) -> None:
    await broker.connect()
    lease = await broker.lease(broker.permit())
    box = Box(PrivateKey(b"r" * 32), PublicKey(bytes.fromhex(broker.connections.sealing_key)))
    with pytest.raises(CryptoError):
        box.decrypt(base64.b64decode(lease.sealed))


async def test_of_fifty_uses_of_one_permit_at_once_one_works(broker: Broker) -> None:
    await broker.connect()
    permit = broker.permit()
    outcomes = await asyncio.gather(*(broker.lease(permit) for _ in range(50)), return_exceptions=True)
    refused = [outcome.refusal_code for outcome in outcomes if isinstance(outcome, Refusal)]
    assert refused == ["lease.permit_used"] * 49
    assert await broker.refusals() == refused
    assert len(await broker.events(topic=Lease.Issued.TOPIC)) == 1


async def test_an_expired_permit_gets_no_lease(broker: Broker, clocks: Clocks) -> None:
    await broker.connect()
    permit = broker.permit()
    clocks.pass_time(15)
    assert await code_of(broker, permit) == "lease.permit_expired"


async def test_a_permit_of_the_future_gets_no_lease(broker: Broker, clocks: Clocks) -> None:
    await broker.connect()
    later = clocks.now.timestamp() + 60
    assert await code_of(broker, broker.permit(iat=later, exp=later + 15)) == "lease.permit_not_yet_valid"


async def test_a_permit_that_lives_longer_than_permits_do_gets_no_lease(broker: Broker, clocks: Clocks) -> None:
    await broker.connect()
    assert await code_of(broker, broker.permit(exp=clocks.now.timestamp() + 3600)) == "lease.permit_expired"


@pytest.mark.parametrize("other", [BOB, GUS], ids=["another user", "another tenant"])
async def test_a_permit_of_somebody_else_gets_no_lease_and_stays_theirs(broker: Broker, other: Caller) -> None:
    await broker.connect(ALICE)
    await broker.connect(other)
    permit = broker.permit(ALICE)
    assert await code_of(broker, permit, other) == "lease.permit_mismatch"
    assert broker.opened(await broker.lease(permit, ALICE)).user == "u-alice"


@pytest.mark.parametrize("said", [{"tool": "sql"}, {"run": "b" * 32}], ids=["tool", "run"])
async def test_a_permit_for_something_else_gets_no_lease(broker: Broker, said: dict[str, str]) -> None:
    await broker.connect()
    assert await code_of(broker, broker.permit(), **said) == "lease.permit_mismatch"


async def test_another_connection_than_the_permits_is_not_lent(broker: Broker) -> None:
    """A runtime that was taken over may choose what it asks for, and not what it was permitted."""
    await broker.connect(name="desk")
    await broker.connect(name="payroll")
    permit = broker.permit(connection="desk")
    assert await code_of(broker, permit, connection="payroll") == "lease.connection_not_permitted"
    assert await code_of(broker, broker.permit(scopes=("read",))) == "lease.connection_not_permitted"


async def test_a_permit_wider_than_the_connection_gets_no_lease(broker: Broker) -> None:
    await broker.connect(scopes=("read",))
    permit = broker.permit(scopes=("connection:desk", "read", "delete"))
    assert await code_of(broker, permit) == "lease.scope_widened"


@pytest.mark.parametrize("place", [0, 10, 200])
async def test_a_tampered_permit_gets_no_lease(broker: Broker, place: int) -> None:
    await broker.connect()
    permit = broker.permit()
    tampered = permit[:place] + ("A" if permit[place] != "A" else "B") + permit[place + 1 :]
    assert await code_of(broker, tampered) in ("lease.permit_bad_signature", "lease.permit_malformed")


async def test_a_permit_that_somebody_else_signed_gets_no_lease(broker: Broker) -> None:
    await broker.connect()
    forged = PermitSigner(b"x" * 32).sign(broker.claims())
    assert await code_of(broker, forged) == "lease.permit_bad_signature"


@pytest.mark.parametrize("text", ["x", ".", "e30.e30", "é.é", "a" * 32_000])
async def test_what_is_no_permit_gets_no_lease(broker: Broker, text: str) -> None:
    await broker.connect()
    assert await code_of(broker, text) == "lease.permit_malformed"


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[]", b'{"permit": 1}', b"\xff", b"[" * 100_000, b'{"permit":"p","tool":"t","run":"r"}']
)
async def test_what_is_no_request_is_refused_as_malformed(broker: Broker, payload: bytes) -> None:
    with pytest.raises(MalformedCommand):
        await broker.leasing.lease(payload, ALICE)


async def test_an_unknown_field_is_refused(broker: Broker) -> None:
    payload = b'{"permit":"p","tool":"t","connection":"c","run":"r","user":"u-bob"}'
    with pytest.raises(MalformedCommand, match="user"):
        await broker.leasing.lease(payload, ALICE)


async def test_without_a_connection_the_refusal_says_how_to_connect(broker: Broker) -> None:
    with pytest.raises(LeaseRefused, match="remit connections add desk") as refusal:
        await broker.lease(broker.permit())
    assert refusal.value.refusal_code == "lease.connection_absent"


async def test_another_users_connection_is_not_lent_and_a_shared_one_is(broker: Broker) -> None:
    await broker.connect(BOB)
    assert await code_of(broker, broker.permit(ALICE)) == "lease.connection_absent"
    await broker.connect(BOB, name="desk2", shared=True, secret="sk-of-the-tenant")
    lease = await broker.lease(broker.permit(ALICE, connection="desk2"), connection="desk2")
    assert broker.opened(lease).secret == "sk-of-the-tenant"
    assert await code_of(broker, broker.permit(GUS, connection="desk2"), GUS, connection="desk2") == (
        "lease.connection_absent"
    )


async def test_a_connection_without_a_host_is_lent_to_nobody_and_the_permit_stays_unused(broker: Broker) -> None:
    await broker.connect(hosts=())
    permit = broker.permit()
    assert await code_of(broker, permit) == "lease.connection_without_host"
    await broker.connections.revoke("desk", ALICE)
    await broker.connect()
    assert broker.opened(await broker.lease(permit)).hosts == ("127.0.0.1:8080",)


async def test_after_a_revocation_there_is_no_lease(broker: Broker) -> None:
    await broker.connect()
    await broker.lease(broker.permit())
    await broker.connections.revoke("desk", ALICE)
    assert await code_of(broker, broker.permit()) == "lease.connection_revoked"


async def test_a_connection_revoked_while_its_secret_is_read_is_not_lent(broker: Broker) -> None:
    await broker.connect()
    reading, may_go_on = asyncio.Event(), asyncio.Event()
    get = broker.secrets.get

    async def slow_get(tenant: str, owner: str, name: str) -> bytes:
        secret = await get(tenant, owner, name)
        reading.set()
        await may_go_on.wait()
        return secret

    broker.secrets.get = slow_get  # type: ignore[method-assign]
    asking = asyncio.create_task(broker.lease(broker.permit()))
    await reading.wait()
    await broker.connections.revoke("desk", ALICE)
    may_go_on.set()
    with pytest.raises(LeaseRefused) as refusal:
        await asking
    assert refusal.value.refusal_code == "lease.connection_revoked"


async def test_an_erased_user_gets_no_lease(broker: Broker) -> None:
    await broker.connect()
    broker.vault.destroy_user_key("acme", "u-alice")
    broker.user_keys.forget("acme", "u-alice")
    with pytest.raises(LeaseRefused) as refusal:
        await broker.lease(broker.permit())
    assert refusal.value.refusal_code == "lease.connection_absent"


async def test_before_the_records_are_read_there_is_no_lease(tmp_path: Path, clocks: Clocks) -> None:
    broker = Broker(tmp_path, clocks)
    try:
        await broker.connect()
        with pytest.raises(Unavailable):
            await broker.lease(broker.permit())
    finally:
        await broker.stop()


async def test_a_used_permit_stays_used_when_the_broker_starts_again(tmp_path: Path, clocks: Clocks) -> None:
    async with running(tmp_path, clocks) as broker:
        await broker.connect()
        permit = broker.permit()
        await broker.lease(permit)
    async with running(tmp_path, clocks) as broker:
        assert await code_of(broker, permit) == "lease.permit_before_start"
        assert broker.opened(await broker.lease(broker.permit())).secret == CANARY


async def test_a_permit_that_was_not_used_before_the_start_is_refused_too(tmp_path: Path, clocks: Clocks) -> None:
    async with running(tmp_path, clocks) as broker:
        await broker.connect()
        permit = broker.permit()
        clocks.pass_time(1)
    async with running(tmp_path, clocks) as broker:
        assert await code_of(broker, permit) == "lease.permit_before_start"


async def test_a_permit_by_a_clock_that_runs_ahead_stays_used_over_a_restart(tmp_path: Path, clocks: Clocks) -> None:
    """Policy's clock is 0.9 s ahead of the broker's, so the permit seems to be younger than the broker's new start."""
    async with running(tmp_path, clocks) as broker:
        await broker.connect()
        ahead = clocks.now.timestamp() + 0.9
        permit = broker.permit(iat=ahead, exp=ahead + 15)
        await broker.lease(permit)
    async with running(tmp_path, clocks) as broker:
        assert await code_of(broker, permit) == "lease.permit_used"


async def test_a_clock_that_is_set_back_over_a_restart_revives_no_permit(tmp_path: Path, clocks: Clocks) -> None:
    async with running(tmp_path, clocks) as broker:
        await broker.connect()
        permit = broker.permit()
        await broker.lease(permit)
    clocks.now -= timedelta(seconds=10)
    async with running(tmp_path, clocks) as broker:
        clocks.now += timedelta(seconds=10)  # in force, and issued after the broker started by its own clock
        assert await code_of(broker, permit) == "lease.permit_before_start"


# -- recording ---------------------------------------------------------------------------------------------------------


async def test_the_issue_is_recorded_under_the_permits_own_id(broker: Broker) -> None:
    await broker.connect()
    claims = broker.claims()
    await broker.lease(broker.policy.sign(claims))
    await broker.lease_records.settled()
    (issued,) = await broker.events(topic=Lease.Issued.TOPIC)
    assert issued.originator_id == Lease.id_of("acme", claims.jti)
    assert (issued.jti, issued.run, issued.tool, issued.connection) == (claims.jti, RUN, "weather-desk", "desk")


class Disk:
    """A recorder that fails while `full`."""

    def __init__(self) -> None:
        self.full = False

    def over(self, open_recorder: Any) -> Any:
        def opened(path: Path, chain: Any) -> Any:
            recorder = open_recorder(path, chain)
            insert, probe = recorder.insert_saves, recorder.probe
            recorder.insert_saves = lambda *args: self.unless_full(insert, *args)
            recorder.probe = lambda: self.unless_full(probe)
            return recorder

        return opened

    def unless_full(self, call: Any, *args: Any) -> Any:
        if self.full:
            raise OperationalError(sqlite3.OperationalError("database or disk is full"))
        return call(*args)


async def test_while_the_store_cannot_be_written_no_lease_is_issued_and_then_what_is_missing_comes_first(
    tmp_path: Path, clocks: Clocks
) -> None:
    disk = Disk()
    async with running(tmp_path, clocks) as broker:
        broker.open_recorder = disk.over(broker.open_recorder)
        await broker.connect()
        disk.full = True
        first = await broker.lease(broker.permit())
        await broker.lease_records.settled()
        for _ in range(3):
            with pytest.raises(Unavailable):
                await broker.lease(broker.permit())
        disk.full = False
        second = await broker.lease(broker.permit())
        await broker.lease_records.settled()
        issued = [event.originator_id.hex for event in await broker.events(topic=Lease.Issued.TOPIC)]
    assert issued == [first.lease_id, second.lease_id]


async def test_what_could_not_be_recorded_is_recorded_at_the_end(tmp_path: Path, clocks: Clocks) -> None:
    disk = Disk()
    async with running(tmp_path, clocks) as broker:
        broker.open_recorder = disk.over(broker.open_recorder)
        await broker.connect()
        disk.full = True
        lease = await broker.lease(broker.permit())
        await broker.lease_records.settled()
        disk.full = False
    async with running(tmp_path, clocks) as broker:
        assert [event.originator_id.hex for event in await broker.events(topic="broker.Lease.")] == [lease.lease_id]


# -- ending ------------------------------------------------------------------------------------------------------------


async def test_revoking_a_connection_ends_its_leases_and_no_others(broker: Broker) -> None:
    await broker.connect(name="desk")
    await broker.connect(name="desk2")
    mine = await broker.lease(broker.permit())
    other = await broker.lease(broker.permit(connection="desk2"), connection="desk2")
    await broker.connections.revoke("desk", ALICE)
    status = {row.lease_id: row.status for row in (await broker.history.newest(ALICE, 10)).leases}
    assert status == {mine.lease_id: "revoked", other.lease_id: "live"}
    (revoked,) = await broker.events(topic=Lease.Revoked.TOPIC)
    assert revoked.originator_id.hex == mine.lease_id


async def test_a_lease_from_before_a_restart_is_revoked_with_its_connection(tmp_path: Path, clocks: Clocks) -> None:
    async with running(tmp_path, clocks) as broker:
        await broker.connect()
        lease = await broker.lease(broker.permit())
    async with running(tmp_path, clocks) as broker:
        assert [row.status for row in (await broker.history.newest(ALICE, 10)).leases] == ["live"]
        await broker.connections.revoke("desk", ALICE)
        (row,) = (await broker.history.newest(ALICE, 10)).leases
    assert (row.lease_id, row.status) == (lease.lease_id, "revoked")


async def test_a_lease_ends_by_the_clock_that_cannot_be_set(broker: Broker, clocks: Clocks) -> None:
    await broker.connect()
    await broker.lease(broker.permit())
    await broker.lease_records.settled()
    clocks.now -= timedelta(days=365)
    clocks.passed += 29.9
    assert [row.status for row in (await broker.history.newest(ALICE, 10)).leases] == ["live"]
    clocks.passed += 0.2
    assert [row.status for row in (await broker.history.newest(ALICE, 10)).leases] == ["expired"]
    assert len(broker.live) == 0


async def test_one_sees_ones_own_leases_newest_first(broker: Broker, clocks: Clocks) -> None:
    await broker.connect(BOB, shared=True)
    mine = []
    for _ in range(5):
        mine.append((await broker.lease(broker.permit(ALICE), ALICE)).lease_id)
        await broker.lease(broker.permit(BOB), BOB)
        clocks.pass_time(1)
    await broker.lease_records.settled()
    assert [row.lease_id for row in (await broker.history.newest(ALICE, 3)).leases] == mine[:1:-1]
    assert [row.lease_id for row in (await broker.history.newest(ALICE, 100)).leases] == mine[::-1]
    assert (await broker.history.newest(GUS, 100)).leases == ()


async def test_the_events_of_a_users_leases_cannot_be_read_once_the_user_is_erased(broker: Broker) -> None:
    await broker.connect(BOB, shared=True)
    await broker.lease(broker.permit(ALICE))
    await broker.lease_records.settled()
    broker.vault.destroy_user_key("acme", "u-alice")
    broker.user_keys.forget("acme", "u-alice")
    with pytest.raises(Absent):
        await broker.events(topic=Lease.Issued.TOPIC)
