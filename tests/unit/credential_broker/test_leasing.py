"""A permit becomes one lease, for exactly whom and what it states."""

import asyncio
import base64
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

import msgspec
import pytest
from nacl.public import Box, PrivateKey

from remit_chassis.eventstore.chain import Chain
from remit_chassis.eventstore.recorders import open_sqlite
from remit_chassis.eventstore.store import EventStore
from remit_chassis.keyring import VaultUserKeys
from remit_chassis.permits import PermitSigner, PermitVerifier
from remit_chassis.vaultfile import VaultFile
from remit_contracts.errors import MalformedCommand, MalformedIdentifier, Refusal, Unavailable
from remit_contracts.fast_leases import LeaseAnswer, LeaseContent, LeaseRequest
from remit_contracts.identity import Caller
from remit_contracts.permits import PermitClaims, args_digest
from remit_credential_broker.domain import Connection
from remit_credential_broker.leasing import Leasing
from remit_credential_broker.projections import Connections
from remit_credential_broker.used_permits import UsedPermits

CANARY = "sk-canary-7f3a9d"
NOW = 1_800_000_000.0
ALICE = Caller("acme", "u-1")


class Desk:
    """A broker's leasing on a real vault and a real event store."""

    def __init__(self, folder):
        self.folder = folder
        self.now = NOW
        self.policy = PermitSigner(b"p" * 32)
        self.broker_key, self.host_key = PrivateKey(b"b" * 32), PrivateKey(b"h" * 32)
        self.vault = VaultFile(folder / "vault.sqlite", b"m" * 32)
        self.connections = Connections()
        self.stores = {}
        self.start(at=NOW - 60)

    def start(self, *, at):
        self.leasing = Leasing(
            verifier=PermitVerifier(self.policy.public_key),
            used=UsedPermits(started_at=at),
            connections=self.connections,
            secrets=self.vault,
            box=Box(self.broker_key, self.host_key.public_key),
            store_of=self.store_of,
            now=lambda: self.now,
        )

    def store_of(self, tenant):
        if tenant not in self.stores:
            chain = Chain("credential-broker", tenant)
            path = self.folder / f"{tenant}.sqlite"
            self.stores[tenant] = EventStore(
                chain, partial(open_sqlite, path, chain), VaultUserKeys(self.vault), clock=lambda: datetime.now(UTC)
            )
        return self.stores[tenant]

    def connect(self, owner="u-1", name="desk", tenant="acme", scopes=("read",)):
        connection = Connection.add(
            tenant=tenant,
            owner=owner,
            name=name,
            kind="bearer",
            hosts=["127.0.0.1:8080"],
            scopes=list(scopes),
            decision={},
            at=datetime.now(UTC),
        )
        self.vault.put_secret(tenant, owner, name, CANARY.encode())
        self.connections.put(connection)
        return connection

    def permit(self, **changes):
        claims = {
            "jti": uuid4().hex,
            "tenant": "acme",
            "user": "u-1",
            "session": "s-1",
            "run": "a" * 32,
            "ordinal": 1,
            "tool": "weather-desk",
            "args_digest": args_digest({}),
            "scopes": ("connection:desk", "read"),
            "bundle_digest": "d",
            "data_revision": "1",
            "input_digest": "i",
            "iat": self.now - 1,
            "exp": self.now + 14,
            **changes,
        }
        return self.policy.sign(PermitClaims(**claims))

    async def lease(self, permit, connection="desk", caller=ALICE):
        return await self.leasing.lease(LeaseRequest(permit, connection).to_bytes(), caller)

    def opened(self, answer):
        sealed = base64.b64decode(LeaseAnswer.from_bytes(answer).sealed)
        return LeaseContent.from_bytes(Box(self.host_key, self.broker_key.public_key).decrypt(sealed))

    async def events(self, tenant="acme"):
        store = self.store_of(tenant)
        return [(e, await store.decode(e)) for e in await store.read(1, 100)]


@pytest.fixture
async def desk(tmp_path):
    made = Desk(tmp_path)
    yield made
    for store in made.stores.values():
        await store.close()
    made.vault.close()


async def refused(desk, *arguments, **keywords):
    with pytest.raises(Refusal) as found:
        await desk.lease(*arguments, **keywords)
    return found.value.refusal_code


async def test_a_lease_names_all_that_the_permit_states_and_opens_for_the_tool_host_alone(desk):
    desk.connect()
    answer = await desk.lease(desk.permit())
    content = desk.opened(answer)
    assert (content.tenant, content.user, content.session, content.run, content.tool) == (
        "acme",
        "u-1",
        "s-1",
        "a" * 32,
        "weather-desk",
    )
    assert (content.secret, content.hosts, content.scopes) == (CANARY, ("127.0.0.1:8080",), ("read",))
    assert content.expires_at == NOW + 30
    assert CANARY.encode() not in answer
    assert base64.b64encode(CANARY.encode()) not in answer


async def test_of_fifty_uses_of_one_permit_at_once_one_works(desk):
    desk.connect()
    permit = desk.permit()
    outcomes = await asyncio.gather(*(desk.lease(permit) for _ in range(50)), return_exceptions=True)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    assert len(refusals) == 49
    assert {refusal.refusal_code for refusal in refusals} == {"permit.used"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": NOW - 0.1}, "permit.expired"),
        ({"tenant": "globex"}, "permit.mismatch"),
        ({"user": "u-2"}, "permit.mismatch"),
        ({"scopes": ("read",)}, "lease.scope_widened"),
        ({"scopes": ("connection:other", "read")}, "lease.scope_widened"),
        ({"scopes": ("connection:desk", "read", "write")}, "lease.scope_widened"),
        ({"iat": NOW - 61}, "lease.permit_before_start"),
    ],
)
async def test_a_permit_that_does_not_fit_gets_no_lease_and_the_refusal_is_recorded(desk, changes, code):
    desk.connect()
    assert await refused(desk, desk.permit(**changes)) == code
    recorded = [event for envelope, event in await desk.events() if envelope.topic == "broker.Lease.Refused"]
    assert [event.code for event in recorded] == [code]


async def test_a_tampered_permit_and_one_of_another_signer_get_no_lease(desk):
    desk.connect()
    permit = desk.permit()
    claims, _, signature = permit.partition(".")
    assert await refused(desk, f"{claims[:-4]}AAAA.{signature}") in ("permit.bad_signature", "permit.malformed")
    desk.policy = PermitSigner(b"x" * 32)
    assert await refused(desk, desk.permit()) == "permit.bad_signature"


async def test_another_users_connection_is_never_lent_and_a_shared_one_is(desk):
    desk.connect(owner="u-2")
    assert await refused(desk, desk.permit()) == "lease.connection_absent"
    desk.connect(owner="system")
    assert desk.opened(await desk.lease(desk.permit())).secret == CANARY


async def test_a_revoked_connection_is_lent_no_more(desk):
    connection = desk.connect()
    connection.revoke(at=datetime.now(UTC))
    desk.connections.put(connection)
    assert await refused(desk, desk.permit()) == "lease.connection_revoked"


async def test_after_a_restart_no_earlier_permit_is_good_again(desk):
    desk.connect()
    permit = desk.permit()
    await desk.lease(permit)
    desk.start(at=NOW)
    assert await refused(desk, permit) == "lease.permit_before_start"


async def test_if_leases_cannot_be_recorded_none_is_issued(desk, monkeypatch):
    desk.connect()
    monkeypatch.setattr(EventStore, "fault", property(lambda self: "no space left"))
    with pytest.raises(Unavailable, match="no space left"):
        await desk.lease(desk.permit())


async def test_the_secret_is_in_no_event_and_in_no_file_in_the_clear(desk):
    desk.connect()
    await desk.lease(desk.permit())
    store = desk.store_of("acme")
    await store.close()
    told = str([vars(event) for _, event in await desk.events()])
    assert CANARY not in told
    for path in desk.folder.iterdir():
        content = path.read_bytes()
        assert CANARY.encode() not in content
        assert base64.b64encode(CANARY.encode()) not in content


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"permit": 3, "connection": "desk"}', b'{"permit": "x"}'])
async def test_a_request_of_another_shape_is_malformed(desk, payload):
    with pytest.raises(MalformedCommand):
        await desk.leasing.lease(payload, ALICE)


async def test_a_connection_name_that_is_none_is_refused(desk):
    with pytest.raises(MalformedIdentifier):
        await desk.leasing.lease(msgspec.json.encode({"permit": "x", "connection": "../desk"}), ALICE)
