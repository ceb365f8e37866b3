"""An event that was rewritten with a hash that fits it is still out of place: the one after it names another."""

import msgspec

from remit_chassis.eventstore.chain import Chain, Head, first_break
from remit_contracts.events import GENESIS, Envelope

CHAIN = Chain("lab", "acme")


def chain_of(count):
    envelopes, previous = [], GENESIS
    for number in range(1, count + 1):
        sealed = Envelope(
            service="lab",
            tenant="acme",
            user="u-1",
            notification_id=number,
            originator_id="0" * 32,
            originator_version=number,
            topic="lab.Document.Written",
            recorded_at="2026-11-24T12:00:00.000000Z",
            state=b"state %d" % number,
            prev_hash=previous,
        ).sealed()
        envelopes.append(sealed)
        previous = sealed.hash
    return envelopes


def test_an_unaltered_chain_has_no_break():
    assert first_break(CHAIN, Head(), chain_of(5)) is None


def test_an_event_rewritten_with_a_fitting_hash_is_found_by_the_one_after_it():
    envelopes = chain_of(5)
    envelopes[2] = msgspec.structs.replace(envelopes[2], state=b"forged").sealed()
    assert envelopes[2].intact
    assert first_break(CHAIN, Head(), envelopes) == 4


def test_an_event_rewritten_onto_another_past_is_found_at_once():
    envelopes = chain_of(5)
    envelopes[2] = msgspec.structs.replace(envelopes[2], prev_hash=envelopes[0].hash).sealed()
    assert first_break(CHAIN, Head(), envelopes) == 3
