import pytest

from remit_chassis import guard
from remit_contracts.errors import ForeignReply, MalformedSubject, PayloadTooLarge
from remit_contracts.identity import Caller

COMMAND = "remit.acme.u-1.cmd.auth.whoami"
RPC = "remit.acme.u-1.rpc.policy.decide"


def test_the_caller_is_who_the_subject_names():
    caller = guard.admit(COMMAND, "_INBOX.acme.u-1.s-9.x", 2, max_bytes=10)
    assert caller == Caller("acme", "u-1", "s-9")


def test_a_service_asks_for_the_user_of_the_subject_without_a_session():
    assert guard.admit(RPC, "_INBOX_SVC.agent-runtime.rq.1", 2, max_bytes=10) == Caller("acme", "u-1")


@pytest.mark.parametrize(
    "reply", ["_INBOX.acme.u-2.s-9.x", "_INBOX_SVC.auth.rq.1", "remit.acme.u-1.live.x", "$JS.ACK.x"]
)
def test_a_command_with_a_foreign_reply_is_refused(reply):
    with pytest.raises(ForeignReply):
        guard.admit(COMMAND, reply, 2, max_bytes=10)


def test_a_service_cannot_have_its_answer_sent_into_a_users_inbox():
    with pytest.raises(ForeignReply):
        guard.admit(RPC, "_INBOX.acme.u-1.s-9.x", 2, max_bytes=10)


def test_a_request_nobody_waits_for_is_refused():
    with pytest.raises(MalformedSubject):
        guard.admit(COMMAND, "", 2, max_bytes=10)


def test_an_oversized_payload_is_refused_with_both_numbers():
    with pytest.raises(PayloadTooLarge, match="11.*10"):
        guard.admit(COMMAND, "_INBOX.acme.u-1.s-9.x", 11, max_bytes=10)


def test_every_header_but_the_trace_is_dropped():
    forged = {"Nats-Request-Info": "{}", "Status": "503", "Nats-Rollup": "all", "X": "y", "traceparent": "00-ab-cd-01"}
    assert guard.trace_parent(forged) == {"traceparent": "00-ab-cd-01"}
    assert guard.trace_parent({"traceparent": "x" * 65}) == {}
    assert guard.trace_parent(None) == {}
