import pytest

from remit_contracts import subjects
from remit_contracts.errors import ForeignReply, MalformedIdentifier, MalformedSubject
from remit_contracts.identity import Caller


def test_a_command_subject_comes_apart_as_it_was_built():
    subject = subjects.command("acme", "u-1", "auth", "whoami")
    assert subject == "remit.acme.u-1.cmd.auth.whoami"
    assert subjects.parse_request(subject) == subjects.Request("acme", "u-1", "cmd", "auth", "whoami")


@pytest.mark.parametrize(
    "subject",
    [
        "remit.acme.u-1.cmd.auth",
        "remit.acme.u-1.cmd.auth.whoami.more",
        "remit.acme.*.cmd.auth.whoami",
        "remit.acme.>.cmd.auth.whoami",
        "remit..u-1.cmd.auth.whoami",
        ".acme.u-1.cmd.auth.whoami",
        "remit.acme.u-1.evt.auth.whoami",
        "remit.acme.u-1.cmd.auth.who\u00a0ami",
        "remit.acme.u-1.cmd.auth.who\x00ami",
        "remit.acme.u-1.cmd.auth.whoami\n",
        "remit.acme.U-1.cmd.auth.whoami",
        "other.acme.u-1.cmd.auth.whoami",
        "",
    ],
)
def test_a_subject_of_any_other_shape_is_refused(subject):
    with pytest.raises(MalformedSubject):
        subjects.parse_request(subject)


@pytest.mark.parametrize("bad", ["a.b", "*", ">", "", "a b", "A"])
def test_no_subject_is_built_from_what_is_no_identifier(bad):
    for build in (
        lambda: subjects.command(bad, "u", "auth", "x"),
        lambda: subjects.command("t", bad, "auth", "x"),
        lambda: subjects.job("t", bad, "a"),
        lambda: subjects.event("t", "u", "auth", bad),
        lambda: subjects.live("t", "u", bad),
        lambda: subjects.events_stream(bad),
        lambda: subjects.user_inbox(Caller("t", "u", bad)),
    ):
        with pytest.raises(MalformedIdentifier):
            build()


def test_a_reply_under_the_callers_inbox_names_the_session():
    assert subjects.session_of_reply("_INBOX.acme.u-1.s-9.aB3_x.1", "acme", "u-1") == "s-9"


@pytest.mark.parametrize(
    "reply",
    [
        "_INBOX.acme.u-10.s-9.x",  # the prefix of a name is not the name
        "_INBOX.acme.u.s-9.x",
        "_INBOX.acm.u-1.s-9.x",
        "_INBOX.acme.u-1.s-9",
        "_INBOX.acme.u-1.s-9.",
        "_INBOX.acme.u-1.*.x",
        "_INBOX.acme.u-1.s-9.>",
        "_INBOX.acme.u-1.S.x",
        "_INBOX_SVC.auth.x",
        "remit.acme.u-2.evt.auth.x",
        "$JS.API.STREAM.DELETE.EVENTS_acme",
        "",
    ],
)
def test_a_reply_anywhere_else_is_refused(reply):
    with pytest.raises(ForeignReply):
        subjects.session_of_reply(reply, "acme", "u-1")


@pytest.mark.parametrize("reply", ["_INBOX_SVC.auth.rq.1", "_INBOX_SVC.agent-runtime.x"])
def test_a_service_is_answered_under_a_services_inbox(reply):
    assert subjects.is_service_reply(reply)


@pytest.mark.parametrize("reply", ["_INBOX_SVC.auth", "_INBOX_SVC.auth.*", "_INBOX_SVC..x", "_INBOX.a.b.c.d", ""])
def test_no_other_inbox_is_a_services(reply):
    assert not subjects.is_service_reply(reply)
