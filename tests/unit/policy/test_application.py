"""Deciding from request to answer, on the real embedded engine: what allows and denies, what is signed and recorded."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

import orjson
import pytest
from unit.policy.tenants import ROLES, call, codes, described, embedded, grant

from remit_chassis.permits import PermitSigner, PermitVerifier
from remit_contracts import fast_decisions as fast
from remit_contracts.decisions import Redecide
from remit_contracts.directory import RoleDefinition, SubjectDescribed
from remit_contracts.errors import Absent, Conflict, MalformedCommand, Tampered, Unavailable
from remit_contracts.fast_decisions import DecisionAnswer
from remit_contracts.identity import Caller
from remit_contracts.permits import TTL_SECONDS
from remit_policy.application import Decisions
from remit_policy.decisions import ForeignSubject
from remit_policy.directory import Directory
from remit_policy.engine import EngineError, EngineFailed, EngineOverloaded, EngineTimeout, EngineUnreachable
from remit_policy.policies import base_policies

NOW = datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC)
CALLER = Caller("acme", "u-1")
SIGNER = PermitSigner(bytes(range(32)))


@dataclass
class Installation:
    """The application with an auth service and a store that do as the test says."""

    engine: object
    roles: tuple = ("analyst",)
    active: bool = True
    revision: int = 7
    tenant_roles: dict = field(default_factory=lambda: ROLES)
    auth_fault: Exception | None = None
    store_fault: Exception | None = None
    recorded: list = field(default_factory=list)

    def __post_init__(self):
        self.directory = Directory(self.ask_auth)
        self.ids = iter(range(1, 10_000))
        self.decisions = Decisions(
            engine=self.engine,
            bundle_digest=base_policies().digest,
            directory=self.directory,
            signer=SIGNER,
            record=self.record,
            clock=lambda: NOW,
            new_id=lambda: UUID(int=next(self.ids)),
        )

    async def ask_auth(self, tenant, user, verb):
        if self.auth_fault:
            raise self.auth_fault
        if verb == "describe-tenant":
            return described(revision=self.revision, roles=self.tenant_roles).to_bytes()
        return SubjectDescribed(
            user=user, handle="h", active=self.active, roles=self.roles, revision=self.revision
        ).to_bytes()

    async def record(self, decision, caller):
        if self.store_fault:
            raise self.store_fault
        (event,) = decision.collect_events()
        self.recorded.append((event, caller))

    def change(self, **changes):
        """The directory changes, and its notice arrives."""
        for name, value in changes.items():
            setattr(self, name, value)
        self.revision += 1
        self.directory.forget("acme")

    async def decide(self, request, caller=CALLER):
        return DecisionAnswer.from_bytes(await self.decisions.decide(request.to_bytes(), caller))

    async def redecide(self, recorded, bundle_digest=None):
        return await self.decisions.redecide(Redecide(input=recorded, bundle_digest=bundle_digest), CALLER)


@pytest.fixture
async def place():
    async with embedded(None, {}) as engine:
        yield Installation(engine)


def in_place_of(failing):
    """An engine whose evaluation fails or answers as told."""

    class Engine:
        name = "odd"

        async def update(self, tenant, document):
            return None

        async def evaluate(self, tenant, input_json):
            if isinstance(failing, Exception):
                raise failing
            return failing

    return Installation(Engine())


async def test_an_allowed_call_gets_a_permit_that_says_exactly_what_was_asked(place):
    answer = await place.decide(call(scopes=("read",)))
    assert answer.decision is True
    claims = PermitVerifier(SIGNER.public_key).verify(answer.context.permit, NOW.timestamp())
    claims.require(tenant="acme", user="u-1", session="s-1", run="r-1", ordinal=3, tool="sql", args_digest="0" * 64)
    assert claims.jti == answer.context.decision_id == UUID(int=1).hex
    assert claims.scopes == ("read",)
    assert claims.obligations == answer.context.obligations
    assert claims.bundle_digest == answer.context.bundle_digest == base_policies().digest
    assert claims.data_revision == answer.context.data_revision == "7"
    assert claims.input_digest == sha256(bytes(answer.context.input)).hexdigest()
    assert (claims.iat, claims.exp) == (NOW.timestamp(), NOW.timestamp() + TTL_SECONDS)


async def test_an_allowed_decision_is_not_recorded_here_because_its_doer_records_it(place):
    await place.decide(call())
    assert place.recorded == []


async def test_the_answer_holds_the_input_as_the_engine_saw_it(place):
    answer = await place.decide(call())
    assert orjson.loads(bytes(answer.context.input)) == {
        "subject": {
            "type": "user",
            "id": "u-1",
            "properties": {"tenant": "acme", "roles": ["analyst"], "active": True},
        },
        "action": {"name": "tool.call", "properties": {}},
        "resource": {"type": "tool", "id": "sql", "properties": {"tenant": "acme", "data_sources": ["sql"]}},
        "context": {
            "time": "2026-01-31T09:30:00.123456Z",
            "run": "r-1",
            "ordinal": 3,
            "args_digest": "0" * 64,
            "session": "s-1",
            "agent": "",
            "scopes": [],
        },
    }
    assert answer.context.evaluated_at == "2026-01-31T09:30:00.123456Z"


async def test_a_denial_is_an_answer_that_was_recorded_before_it_was_given(place):
    place.roles = ("reader",)
    answer = await place.decide(call())
    assert answer.decision is False
    assert answer.context.permit is None
    assert codes(answer.context) == ["policy.no_grant", "policy.source_unreadable"]
    ((event, caller),) = place.recorded
    assert type(event).TOPIC == "policy.Decision.Denied"
    assert caller == CALLER
    assert event.originator_id.hex == answer.context.decision_id
    assert event.timestamp == NOW
    assert event.engine_input == orjson.loads(bytes(answer.context.input))
    assert [reason["code"] for reason in event.reasons] == codes(answer.context)
    assert (event.bundle_digest, event.data_revision) == (base_policies().digest, "7")


async def test_a_denial_that_cannot_be_recorded_denies_and_says_so(place):
    place.roles, place.store_fault = ("reader",), Unavailable("the disk is full")
    answer = await place.decide(call())
    assert answer.decision is False
    assert codes(answer.context)[-1] == "policy.unrecorded"
    assert answer.context.decision_id


@pytest.mark.parametrize(
    "claimed",
    [
        {"roles": ["administrator"]},
        {"roles": ["administrator"], "active": True, "tenant": "acme"},
        {"active": True},
    ],
)
async def test_a_role_or_an_activity_that_the_request_claims_is_not_believed(place, claimed):
    place.roles, place.active = ("reader",), False
    request = fast.msgspec.structs.replace(call(), subject=fast.Subject("user", "u-1", claimed))
    answer = await place.decide(request)
    assert codes(answer.context) == ["policy.inactive_subject"]
    assert orjson.loads(bytes(answer.context.input))["subject"]["properties"] == {
        "tenant": "acme",
        "roles": ["reader"],
        "active": False,
    }


async def test_a_time_that_the_request_claims_is_not_believed(place):
    payload = orjson.loads(call().to_bytes())
    payload["context"]["time"] = "1999-01-01T00:00:00Z"
    answer = DecisionAnswer.from_bytes(await place.decisions.decide(orjson.dumps(payload), CALLER))
    assert orjson.loads(bytes(answer.context.input))["context"]["time"] == "2026-01-31T09:30:00.123456Z"


@pytest.mark.parametrize(
    "request_",
    [
        call(user="u-2"),
        call(user="U-1"),
        call(user="*"),
        fast.msgspec.structs.replace(call(), subject=fast.Subject("user", "u-1", {"tenant": "globex"})),
    ],
)
async def test_a_request_about_somebody_else_is_refused_and_not_even_decided(place, request_):
    with pytest.raises(ForeignSubject) as refused:
        await place.decide(request_)
    assert refused.value.refusal_code == "policy.foreign_subject"
    assert place.recorded == []


async def test_a_resource_of_another_tenant_is_denied_and_recorded(place):
    answer = await place.decide(call(tenant="globex"))
    assert codes(answer.context) == ["policy.foreign_tenant"]
    assert len(place.recorded) == 1


async def test_a_disabled_user_is_denied_at_once(place):
    assert (await place.decide(call())).decision is True
    place.change(active=False)
    assert codes((await place.decide(call())).context) == ["policy.inactive_subject"]


async def test_a_role_that_was_taken_away_denies_at_once(place):
    assert (await place.decide(call())).decision is True
    place.change(roles=())
    assert (await place.decide(call())).decision is False


async def test_a_changed_role_reaches_the_engine_with_its_revision(place):
    assert (await place.decide(call())).context.data_revision == "7"
    place.change(tenant_roles={"analyst": ROLES["reader"]})
    answer = await place.decide(call())
    assert (answer.decision, answer.context.data_revision) == (False, "8")


async def test_many_at_once_around_a_change_are_each_of_one_revision(place):
    asking = []
    for _ in range(20):
        asking += [asyncio.ensure_future(place.decide(call())) for _ in range(5)]
        await asking[-5]  # the other four are still under way when the directory changes
        # odd revisions know analysts, even ones do not
        place.change(tenant_roles=ROLES if place.revision % 2 == 0 else {"analyst": ROLES["reader"]})
    answers = await asyncio.gather(*asking)
    assert {answer.decision for answer in answers} == {True, False}
    for answer in answers:
        assert answer.decision is (int(answer.context.data_revision) % 2 == 1)


async def test_nothing_is_decided_about_a_tenant_whose_directory_was_tampered_with(place):
    place.auth_fault = Tampered("the store of acme/auth is not used", code="tampered.store")
    with pytest.raises(Tampered):
        await place.decide(call())
    assert place.recorded == []


async def test_an_unknown_user_is_denied(place):
    place.auth_fault = Absent("no such user")
    assert codes((await place.decide(call())).context) == ["policy.unknown_subject"]


async def test_without_the_directory_nothing_is_allowed(place):
    place.auth_fault = Unavailable("auth does not answer")
    answer = await place.decide(call())
    assert (answer.decision, codes(answer.context)) == (False, ["policy.directory_unavailable"])
    assert len(place.recorded) == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (EngineTimeout("late"), "policy.deadline"),
        (EngineFailed("died"), "policy.engine_failed"),
        (EngineUnreachable("gone"), "policy.engine_unreachable"),
        (EngineOverloaded("full"), "policy.overloaded"),
        (EngineError("odd"), "policy.engine_failed"),
    ],
)
async def test_an_engine_that_fails_denies_with_its_own_code(fault, code):
    place = in_place_of(fault)
    answer = await place.decide(call())
    assert (answer.decision, codes(answer.context), answer.context.permit) == (False, [code], None)
    assert len(place.recorded) == 1
    assert "died" not in answer.reason


@pytest.mark.parametrize(
    "result",
    [
        b"",
        b"null",
        b"true",
        b'"<undefined>"',
        b'"true"',
        b"{}",
        b"[true]",
        b'{"allow":true}',
        b'{"allow":1,"reasons":[],"obligations":[],"revision":""}',
        b'{"allow":true,"reasons":[],"obligations":[],"revision":""',
        b'{"allow":true,"reasons":[],"obligations":["mask"],"revision":""}',
        b"\xff",
        b"[" * 5000,
    ],
)
async def test_only_an_exact_result_allows(result):
    answer = await in_place_of(result).decide(call())
    assert answer.decision is False
    assert answer.context.permit is None
    assert codes(answer.context)[0] in ("policy.undefined", "policy.odd_result")


@pytest.mark.parametrize(
    "request_",
    [
        call(run=""),
        call(ordinal=None),
        call(args_digest=""),
        fast.ask(
            user="u-1",
            action="agent.invoke",
            resource_type="agent",
            resource_id="sql",
            tenant="acme",
            context=call().context,
        ),
        fast.ask(
            user="u-1",
            action="data.read",
            resource_type="data_source",
            resource_id="sql",
            tenant="acme",
            context=call().context,
        ),
    ],
)
async def test_nothing_but_a_named_tool_call_is_given_a_permit(place, request_):
    answer = await place.decide(request_)
    assert (answer.decision, answer.context.permit) == (True, None)


@pytest.mark.parametrize(("action", "resource_type"), [("data.read", "tool"), ("tool.call", "agent")])
async def test_neither_the_action_nor_the_type_alone_makes_a_tool_call(place, action, resource_type):
    place.tenant_roles = {"analyst": RoleDefinition(permissions=(grant(action, "*", "*"),))}
    answer = await place.decide(
        fast.ask(
            user="u-1",
            action=action,
            resource_type=resource_type,
            resource_id="sql",
            tenant="acme",
            context=call().context,
        )
    )
    assert (answer.decision, answer.context.permit) == (True, None)


async def test_being_allowed_to_read_a_run_called_sql_permits_no_call_of_sql(place):
    place.roles = ("operator",)
    answer = await place.decide(
        fast.ask(
            user="u-1",
            action="run.read",
            resource_type="run",
            resource_id="sql",
            tenant="acme",
            context=call().context,
        )
    )
    assert (answer.decision, answer.context.permit) == (True, None)


@pytest.mark.parametrize("payload", [b"", b"{}", b"null", b"[]", b"\xff", b'{"subject":1}', b"[" * 100_000])
async def test_what_is_no_request_is_malformed(place, payload):
    with pytest.raises(MalformedCommand):
        await place.decisions.decide(payload, CALLER)


@pytest.mark.parametrize("depth", [17, 500, 5_000])
async def test_deeply_nested_properties_are_refused_before_any_engine_sees_them(place, depth):
    payload = call().to_bytes().replace(b'"data_sources":["sql"]', b'"deep":' + b"[" * depth + b"]" * depth)
    with pytest.raises(MalformedCommand):
        await place.decisions.decide(payload, CALLER)


async def test_properties_that_nest_a_little_are_fine(place):
    request = fast.ask(user="u-1", action="agent.invoke", resource_type="agent", resource_id="a", tenant="acme")
    request.resource.properties["labels"] = {"team": [["a", "b"], {"c": None}]}
    assert (await place.decide(request)).decision is True


async def test_a_request_too_large_for_the_engine_is_refused(place):
    request = call()
    request.resource.properties["note"] = "\u00e9" * 40_000
    with pytest.raises(MalformedCommand, match="bytes"):
        await place.decide(request)


async def test_a_recorded_input_is_decided_again_as_it_was(place):
    place.roles = ("reader",)
    answer = await place.decide(call())
    ((event, _),) = place.recorded
    again = await place.redecide(event.engine_input, answer.context.bundle_digest)
    assert again.decision is False
    assert codes(again) == codes(answer.context)
    assert (again.bundle_digest, again.data_revision) == (answer.context.bundle_digest, "7")
    assert len(place.recorded) == 1


async def test_a_recorded_input_keeps_the_roles_and_the_time_of_then(place):
    recorded = orjson.loads(bytes((await place.decide(call())).context.input))
    place.change(roles=(), active=False)
    again = await place.redecide(recorded)
    assert again.decision is True
    assert {obligation.type for obligation in again.obligations} == {"mask_fields", "max_rows"}
    assert again.data_revision == "8"


async def test_a_replay_on_another_bundle_is_refused_and_names_the_active_one(place):
    with pytest.raises(Conflict, match=base_policies().digest):
        await place.redecide({}, "0" * 64)


@pytest.mark.parametrize(
    "recorded",
    [
        {},
        {"subject": None},
        {"subject": {"id": "u-1"}},
        {"subject": {"id": "u-2", "properties": {"tenant": "acme"}}},
        {"subject": {"id": "u-1", "properties": {"tenant": "globex"}}},
        {"subject": {"id": "u-1", "properties": ["acme"]}},
    ],
)
async def test_a_replay_about_somebody_else_is_refused(place, recorded):
    with pytest.raises(ForeignSubject):
        await place.redecide(recorded)
