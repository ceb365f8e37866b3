"""The two forms of a lease's messages agree, in what they accept and in what they write."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_contracts import fast_leases, leases
from remit_contracts.errors import MalformedCommand, Tampered

text = st.text(max_size=300)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(permit=text, tool=text, connection=text, run=text)
def test_both_forms_accept_the_same_requests(permit: str, tool: str, connection: str, run: str) -> None:
    payload = orjson.dumps({"permit": permit, "tool": tool, "connection": connection, "run": run})
    try:
        slow = leases.LeaseRequest.from_bytes(payload)
    except MalformedCommand:
        with pytest.raises(MalformedCommand):
            fast_leases.LeaseRequest.from_bytes(payload)
        return
    fast = fast_leases.LeaseRequest.from_bytes(payload)
    assert (fast.permit, fast.tool, fast.connection, fast.run) == (slow.permit, slow.tool, slow.connection, slow.run)
    assert orjson.loads(fast.to_bytes()) == orjson.loads(slow.to_bytes())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"{}",
        b'{"permit":"p","tool":"t","connection":"c"}',
        b'{"permit":"p","tool":"t","connection":"c","run":1}',
        b'{"permit":"p","tool":"t","connection":"c","run":"r","secret":"s"}',
    ],
)
def test_both_forms_refuse_the_same_requests(payload: bytes) -> None:
    for form in (leases.LeaseRequest, fast_leases.LeaseRequest):
        with pytest.raises(MalformedCommand):
            form.from_bytes(payload)


@given(lease_id=text, sealed=text, expires_at=instants)
def test_both_forms_of_an_answer_read_each_other(lease_id: str, sealed: str, expires_at: datetime) -> None:
    fast = fast_leases.LeaseAnswer(lease_id=lease_id, sealed=sealed, expires_at=expires_at)
    slow = leases.LeaseAnswer.from_bytes(fast.to_bytes())
    assert (slow.lease_id, slow.sealed, slow.expires_at) == (lease_id, sealed, expires_at)
    assert fast_leases.LeaseAnswer.from_bytes(slow.to_bytes()) == fast


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"error":{"code":"x"}}', b'{"lease_id":"a","sealed":"b"}', b"\xff"])
def test_an_answer_that_is_none_is_tampered(payload: bytes) -> None:
    with pytest.raises(Tampered):
        fast_leases.LeaseAnswer.from_bytes(payload)


def test_neither_a_permit_nor_a_secret_shows_in_a_repr() -> None:
    content = fast_leases.LeaseContent(
        lease="l",
        secret="sk-canary",
        tenant="acme",
        user="u-1",
        session="s-1",
        run="r",
        ordinal=1,
        tool="t",
        connection="c",
        hosts=("h:1",),
        scopes=(),
        jti="j",
        expires_at=1.0,
    )
    assert fast_leases.LeaseContent.from_bytes(content.to_bytes()) == content
    request = leases.LeaseRequest(permit="sk-canary", tool="t", connection="c", run="r")
    assert "canary" not in repr(content) + repr(request)
