"""The two forms of the decision messages are one: same bytes in and out, the same refusals."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_contracts import decisions as slow
from remit_contracts import fast_decisions as fast
from remit_contracts.errors import Denied, MalformedCommand, Tampered

texts = st.text(min_size=1, max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
properties = st.dictionaries(st.text(max_size=10), plain, max_size=4)
contexts = st.builds(
    fast.DecisionContext,
    run=st.text(max_size=20),
    ordinal=st.none() | st.integers(0, 2**31 - 1),
    args_digest=st.text(max_size=64),
    session=st.text(max_size=20),
    agent=st.text(max_size=20),
    scopes=st.lists(texts, max_size=4).map(tuple),
)
requests = st.builds(
    fast.DecisionRequest,
    subject=st.builds(fast.Subject, type=texts, id=texts, properties=properties),
    action=st.builds(fast.Action, name=texts, properties=properties),
    resource=st.builds(fast.Resource, type=texts, id=texts, properties=properties),
    context=contexts,
)
answers = st.builds(
    fast.DecisionAnswer,
    decision=st.booleans(),
    context=st.builds(
        fast.AnswerContext,
        decision_id=texts,
        reasons=st.lists(st.builds(fast.Reason, code=texts, message=st.text(max_size=20)), max_size=3).map(tuple),
        obligations=st.lists(st.builds(fast.Obligation, type=texts, properties=properties), max_size=3).map(tuple),
        bundle_digest=st.text(max_size=64),
        data_revision=st.text(max_size=10),
        permit=st.none() | st.text(max_size=30),
        input=properties.map(lambda value: fast.msgspec.Raw(orjson.dumps(value))),
        evaluated_at=st.text(max_size=30),
    ),
)


@given(requests)
def test_both_forms_of_a_request_agree_on_the_same_bytes(request):
    encoded = request.to_bytes()
    assert slow.DecisionRequest.from_bytes(encoded).to_bytes() == encoded
    assert fast.DecisionRequest.from_bytes(encoded) == request


@given(answers)
def test_both_forms_of_an_answer_agree_on_the_same_bytes(answer):
    encoded = answer.to_bytes()
    assert slow.DecisionAnswer.from_bytes(encoded).to_bytes() == encoded
    assert fast.DecisionAnswer.from_bytes(encoded).to_bytes() == encoded


VALID = {
    "subject": {"type": "user", "id": "u-1"},
    "action": {"name": "tool.call"},
    "resource": {"type": "tool", "id": "sql", "properties": {"tenant": "acme"}},
}


@given(
    path=st.sampled_from(
        [
            ("subject",),
            ("action",),
            ("resource",),
            ("context",),
            ("subject", "type"),
            ("subject", "id"),
            ("subject", "properties"),
            ("action", "name"),
            ("resource", "id"),
            ("resource", "properties"),
            ("context", "run"),
            ("context", "ordinal"),
            ("context", "scopes"),
        ]
    ),
    value=plain | st.just("x" * 65) | st.just("x" * 257) | st.just(["s"] * 65) | st.just(2**31) | st.just(1.0),
)
def test_both_forms_accept_and_refuse_alike(path, value):
    request = orjson.loads(orjson.dumps({**VALID, "context": {}}))
    place = request
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    payload = orjson.dumps(request)

    def outcome(form):
        try:
            return orjson.loads(form.DecisionRequest.from_bytes(payload).to_bytes())
        except MalformedCommand:
            return "refused"

    assert outcome(fast) == outcome(slow)


@pytest.mark.parametrize("missing", ["subject", "action", "resource"])
def test_a_request_without_a_required_part_is_refused_by_both(missing):
    payload = orjson.dumps({name: part for name, part in VALID.items() if name != missing})
    for form in (fast, slow):
        with pytest.raises(MalformedCommand) as refused:
            form.DecisionRequest.from_bytes(payload)
        assert missing in refused.value.reason


def test_unknown_fields_are_ignored_as_authzen_asks():
    payload = orjson.dumps({**VALID, "options": {"x": 1}, "context": {"ip": "192.0.2.1"}})
    for form in (fast, slow):
        assert form.DecisionRequest.from_bytes(payload).context == form.DecisionContext()


@pytest.mark.parametrize("depth", [1_500, 5_000, 100_000])
@pytest.mark.parametrize("form", [fast, slow])
def test_nesting_that_would_exhaust_the_stack_is_refused(form, depth):
    payload = orjson.dumps(VALID).replace(b'"acme"', b"[" * depth + b"]" * depth)
    with pytest.raises(MalformedCommand):
        form.DecisionRequest.from_bytes(payload)


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"null",
        b"true",
        b"[]",
        b'{"decision":1,"context":{"decision_id":"d"}}',
        b'{"decision":"true","context":{"decision_id":"d"}}',
        b'{"context":{"decision_id":"d"}}',
    ],
)
def test_an_odd_answer_is_never_taken_for_an_allowing_one(odd):
    with pytest.raises(Tampered):
        fast.DecisionAnswer.from_bytes(odd)


def test_a_required_answer_that_denies_raises_its_reason_and_decision_id():
    context = fast.AnswerContext(decision_id="d-1", reasons=(fast.Reason("policy.no_grant", "no role grants it"),))
    with pytest.raises(Denied) as denied:
        fast.DecisionAnswer(False, context).required()
    assert (denied.value.refusal_code, denied.value.reason, denied.value.decision_id) == (
        "policy.denied",
        "no role grants it",
        "d-1",
    )
    allowing = fast.DecisionAnswer(True, context)
    assert allowing.required() is allowing


def test_a_denial_that_no_policy_decided_keeps_its_own_code():
    context = fast.AnswerContext(decision_id="d-1", reasons=(fast.Reason("policy.deadline", "not decided in time"),))
    with pytest.raises(Denied) as denied:
        fast.DecisionAnswer(False, context).required()
    assert denied.value.refusal_code == "policy.deadline"
