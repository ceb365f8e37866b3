"""The tool host believes the permit and the lease only, and each of them once."""

from __future__ import annotations

import base64
import time
import uuid
from typing import Any

import msgspec
import pytest
from nacl.public import PrivateKey, SealedBox
from unit.toolhost.rig import SECRET, Rig

from remit_agent_runtime.toolhost.admission import Admission, LeaseOpener
from remit_agent_runtime.toolhost.definitions import HttpTool
from remit_agent_runtime.toolhost.once import ForwardClock, UsedOnce
from remit_agent_runtime.toolhost.refusals import ToolRefused
from remit_agent_runtime.toolhost.wire import Call
from remit_chassis.permits import PermitSigner
from remit_contracts.permits import PermitRefused

ARGUMENTS = {"sql": "SELECT 1"}
DESK = HttpTool(id="desk", url="https://desk.example/", connection="desk")


def wired(rig: Rig, **changes: Any) -> Call:
    """A good call with its frame's own fields changed."""
    made = rig.call("sql", ARGUMENTS)
    fields = {
        "id": 1,
        "permit": made.permit,
        "sealed_lease": None,
        "tool": made.tool,
        "arguments": made.arguments,
        "idempotency_key": made.idempotency_key,
        "deadline_seconds": 1.0,
    }
    return Call(**(fields | changes))


def of(rig: Rig, **claims: Any) -> Call:
    """A call whose permit states other claims."""
    made = rig.call("sql", ARGUMENTS, **claims)
    return wired(rig, permit=made.permit, idempotency_key=made.idempotency_key)


@pytest.fixture
def admission(rig: Rig) -> Admission:
    return Admission(permit_public_key=rig.policy.public_key, started_at=time.time() - 60)


def refusal_of(admission: Admission, call: Call, now: float | None = None) -> str:
    with pytest.raises(PermitRefused) as refused:
        admission.admit(call, now=now or time.time())
    return refused.value.refusal_code


def test_a_good_permit_is_admitted_once(rig: Rig, admission: Admission) -> None:
    call = wired(rig)
    assert admission.admit(call, now=time.time()).user == "u-1"
    assert refusal_of(admission, call) == "permit.used"


def test_a_permit_for_something_else_is_refused(rig: Rig, admission: Admission) -> None:
    assert refusal_of(admission, wired(rig, tool="docs")) == "permit.mismatch"
    assert refusal_of(admission, wired(rig, arguments={"sql": "SELECT 2"})) == "permit.mismatch"
    assert refusal_of(admission, wired(rig, arguments={})) == "permit.mismatch"
    assert refusal_of(admission, wired(rig, idempotency_key=f"{uuid.uuid4().hex}:1")) == "permit.mismatch"
    assert refusal_of(admission, wired(rig, idempotency_key="")) == "permit.mismatch"


def test_a_permit_out_of_its_time_is_refused(rig: Rig, admission: Admission) -> None:
    now = time.time()
    assert refusal_of(admission, of(rig, iat=now - 20, exp=now - 5)) == "permit.expired"
    assert refusal_of(admission, of(rig, iat=now + 60, exp=now + 75)) == "permit.not_yet_valid"
    assert refusal_of(admission, of(rig, iat=now - 61, exp=now + 15)) == "permit.before_start"


def test_a_permit_of_another_signer_or_altered_is_refused(rig: Rig, admission: Admission) -> None:
    good = wired(rig)
    forger = PermitSigner(PrivateKey.generate().encode())
    forged = forger.sign(rig.claims("sql", ARGUMENTS))
    claims, _, signature = good.permit.partition(".")
    raw = base64.urlsafe_b64decode(claims + "==").replace(b'"u-1"', b'"u-2"')
    altered = f"{base64.urlsafe_b64encode(raw).decode().rstrip('=')}.{signature}"
    assert refusal_of(admission, msgspec.structs.replace(good, permit=forged)) == "permit.bad_signature"
    assert refusal_of(admission, msgspec.structs.replace(good, permit=altered)) == "permit.bad_signature"
    for junk in ("", ".", "a.b", claims, f"{claims}.", f".{signature}", "\ud800"):
        assert refusal_of(admission, msgspec.structs.replace(good, permit=junk)).startswith("permit.")


def test_a_clock_set_back_brings_no_used_permit_into_force_again(rig: Rig, admission: Admission) -> None:
    now = time.time()
    call = of(rig, iat=now, exp=now + 5)
    admission.admit(call, now=now)
    admission.admit(of(rig, iat=now + 20, exp=now + 35), now=now + 20)  # the first one is forgotten by now
    assert refusal_of(admission, call, now=now + 1) == "permit.expired"


def test_used_ids_are_kept_until_they_expire_and_no_longer() -> None:
    used = UsedOnce()
    assert used.take("a", expires=10, now=1)
    assert not used.take("a", expires=10, now=10)
    for number in range(1_000):
        assert used.take(f"n{number}", expires=20 + number, now=11 + number)
    assert len(used) < 20
    assert used.take("a", expires=3_000, now=2_000)


def test_the_forward_clock_never_goes_back() -> None:
    clock = ForwardClock()
    assert [clock(reading) for reading in (1.0, 3.0, 2.0, 4.0)] == [1.0, 3.0, 3.0, 4.0]


@pytest.fixture
def opener(rig: Rig) -> LeaseOpener:
    return LeaseOpener(key=rig.host.encode(), broker_public_key=rig.broker.public_key.encode())


def open_refused(opener: LeaseOpener, sealed: str | None, claims: Any, tool: HttpTool = DESK) -> ToolRefused:
    with pytest.raises(ToolRefused) as refused:
        opener.open(sealed, claims=claims, tool=tool, now=time.time())
    assert SECRET not in repr(refused.value)
    return refused.value


def test_a_lease_is_opened_once_for_exactly_its_call(rig: Rig, opener: LeaseOpener) -> None:
    claims = rig.claims("desk", {})
    sealed = rig.lease(claims)
    assert opener.open(sealed, claims=claims, tool=DESK, now=time.time()).secret == SECRET
    assert open_refused(opener, sealed, claims).reason == "the lease has been used"


def test_without_a_lease_there_is_no_call(rig: Rig, opener: LeaseOpener) -> None:
    claims = rig.claims("desk", {})
    assert open_refused(opener, None, claims).refusal_code == "tool.lease_required"
    assert open_refused(opener, "", claims).refusal_code == "tool.lease_required"


@pytest.mark.parametrize(
    "changes",
    [
        {"jti": "another"},
        {"tenant": "globex"},
        {"user": "u-2"},
        {"session": "s-2"},
        {"run": "0" * 32},
        {"ordinal": 2},
        {"tool": "mail"},
        {"connection": "mail"},
        {"expires_at": 1.0},
        {"secret": ""},
        {"secret": "a\r\nX-Injected: 1"},
    ],
)
def test_a_lease_for_anything_else_is_refused(rig: Rig, opener: LeaseOpener, changes: dict[str, Any]) -> None:
    claims = rig.claims("desk", {})
    assert open_refused(opener, rig.lease(claims, **changes), claims).refusal_code == "tool.lease_invalid"


def test_a_lease_that_the_broker_did_not_seal_is_refused(rig: Rig, opener: LeaseOpener) -> None:
    claims = rig.claims("desk", {})
    good = rig.lease(claims)
    anonymous = base64.b64encode(SealedBox(rig.host.public_key).encrypt(base64.b64decode(good))).decode()
    flipped = base64.b64encode(bytes([*base64.b64decode(good)[:-1], base64.b64decode(good)[-1] ^ 1])).decode()
    for sealed in (
        rig.lease(claims, sealer=PrivateKey.generate()), anonymous, flipped, good[:-8], "not base64!", "A", "é" * 8,
        "A" * 70_000,
    ):  # fmt: skip
        assert open_refused(opener, sealed, claims).refusal_code == "tool.lease_invalid"
