"""The envelope of a stored event: hashed so that nothing can be altered or moved, and carried whole by a message."""

from __future__ import annotations

import struct
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_contracts import events
from remit_contracts.errors import Tampered
from remit_contracts.events import GENESIS, Envelope, from_message

ONE = Envelope(
    service="lab",
    tenant="acme",
    user="u-1",
    notification_id=7,
    originator_id="0123456789abcdef0123456789abcdef",
    originator_version=2,
    topic="lab.Document.Edited",
    recorded_at="2026-01-31T12:00:00.000000Z",
    state=b"\x00ciphertext\xff",
    prev_hash=GENESIS,
).sealed()

CHANGES = {
    "service": "la",
    "tenant": "acmf",
    "user": "u-2",
    "notification_id": 8,
    "originator_id": "1123456789abcdef0123456789abcdef",
    "originator_version": 3,
    "topic": "lab.Document.Ended",
    "recorded_at": "2026-01-31T12:00:00.000001Z",
    "state": b"\x00ciphertext\xfe",
    "prev_hash": bytes(31) + b"\x01",
}


def test_the_hash_is_what_the_documentation_says_an_auditor_can_recompute() -> None:
    fields = [
        b"lab",
        b"acme",
        b"u-1",
        b"7",
        b"0123456789abcdef0123456789abcdef",
        b"2",
        b"lab.Document.Edited",
        b"2026-01-31T12:00:00.000000Z",
        b"\x00ciphertext\xff",
        bytes(32),
    ]
    encoded = b"remit-event-v1\n" + b"".join(struct.pack(">I", len(field)) + field for field in fields)
    assert ONE.hash == sha256(encoded).digest()


@pytest.mark.parametrize("field", CHANGES)
def test_no_field_can_change_without_the_hash(field: str) -> None:
    assert not msgspec.structs.replace(ONE, **{field: CHANGES[field]}).intact


def test_every_field_but_the_hash_is_hashed() -> None:
    assert set(CHANGES) | {"hash"} == set(Envelope.__struct_fields__)


texts = st.text(max_size=12)


@given(st.lists(texts, min_size=6, max_size=6), st.binary(max_size=12), st.binary(max_size=12))
def test_fields_cannot_run_into_each_other(texts: list[str], state: bytes, prev_hash: bytes) -> None:
    service, tenant, user, originator, topic, recorded_at = texts
    encoded = Envelope(service, tenant, user, 7, originator, 2, topic, recorded_at, state, prev_hash).encoded()
    rest, found = encoded[len(events.ENCODING) :], []
    while rest:
        length = int.from_bytes(rest[:4], "big")
        found.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    assert found == [
        *(text.encode() for text in (service, tenant, user)),
        b"7",
        originator.encode(),
        b"2",
        topic.encode(),
        recorded_at.encode(),
        state,
        prev_hash,
    ]


def test_a_message_carries_the_whole_envelope() -> None:
    assert from_message(ONE.to_headers() | {"Nats-Msg-Id": "x"}, ONE.state, ONE.subject) == ONE


@pytest.mark.parametrize("header", ONE.to_headers())
@pytest.mark.parametrize("value", [None, "", "0", "-1", "7 ", "ff" * 32, "٧"])
def test_a_message_with_a_forged_header_is_tampered(header: str, value: str | None) -> None:
    headers = ONE.to_headers()
    if value is None:
        del headers[header]
    else:
        headers[header] = value
    with pytest.raises(Tampered):
        from_message(headers, ONE.state, ONE.subject)


@pytest.mark.parametrize(
    "subject",
    [
        "remit.globex.u-1.evt.lab.0123456789abcdef0123456789abcdef",
        "remit.acme.u-2.evt.lab.0123456789abcdef0123456789abcdef",
        "remit.acme.u-1.evt.auth.0123456789abcdef0123456789abcdef",
        "remit.acme.u-1.evt.lab.1123456789abcdef0123456789abcdef",
        "remit.acme.u-1.cmd.lab.0123456789abcdef0123456789abcdef",
        "remit.acme.u-1.evt.lab",
        "",
    ],
)
def test_a_message_on_another_subject_is_tampered(subject: str) -> None:
    with pytest.raises(Tampered):
        from_message(ONE.to_headers(), ONE.state, subject)


def test_a_message_with_another_body_or_no_headers_is_tampered() -> None:
    with pytest.raises(Tampered):
        from_message(ONE.to_headers(), ONE.state + b"!", ONE.subject)
    with pytest.raises(Tampered):
        from_message(None, ONE.state, ONE.subject)


def test_an_envelope_is_frozen() -> None:
    with pytest.raises(AttributeError):
        ONE.user = "u-2"  # type: ignore[misc]
