"""A stream that somebody else wrote into: a relay believes nobody, and says what does not fit."""

from __future__ import annotations

import pytest
from fixtures_nats import Bus
from integration.copying import copied, copying, make_stream, messages
from unit.chassis_eventstore.documents import Keys

from remit_chassis.eventstore.relay import message_id
from remit_chassis.settings import read_hex_secret
from remit_contracts import events, subjects
from remit_contracts.errors import Tampered


async def test_a_claimed_message_id_is_not_taken_for_success(nats_bus: Bus) -> None:
    """Somebody who has the relay's key publishes rubbish under the id of an event to come."""
    await make_stream(nats_bus)
    keys = Keys()
    async with copying(nats_bus, keys) as copy:
        await copy.store.compared()
        nats_bus.stop()
        await copy.save(3)
        stored = await copy.stored()
        key = read_hex_secret(nats_bus.home.secrets / "relay" / "policy.key")
        nats_bus.start()
        # As another service, on a subject of its own: the stream remembers ids across all subjects.
        async with nats_bus.client("audit") as nc:
            ack = await nc.jetstream().publish(
                subjects.event("acme", "u-9", "audit", "0" * 32),
                b"forged",
                headers={"Nats-Msg-Id": message_id(key, stored[1])},
            )
            assert ack.seq == 1
        await copy.caught_up()
        found = [message for message in await messages(nats_bus) if ".evt.policy." in message.subject]
        envelopes = [events.from_message(message.headers, message.data, message.subject) for message in found]
        assert sorted(envelopes, key=lambda envelope: envelope.notification_id) == stored
        assert [(code, detail["notification_id"]) for code, detail in copy.alarms] == [("relay.forged", 2)]
        assert copy.relay.position == 3


async def test_a_stream_that_ends_with_what_the_store_has_not_is_an_alarm(nats_bus: Bus) -> None:
    """As when the store was restored from an old copy: adding to the stream would fork the record."""
    await make_stream(nats_bus)
    keys = Keys()
    async with copying(nats_bus, keys) as copy:
        await copy.save(5)
        await copy.caught_up()
        stored = await copy.stored()
    for file in (nats_bus.home.path / "store" / "policy").iterdir():
        file.unlink()
    async with copying(nats_bus, keys) as copy:
        # Whoever goes on writing would widen the fork: no save, no readiness.
        with pytest.raises(Tampered):
            await copy.save(1)
        with pytest.raises(Tampered):
            await copy.store.probe()
        assert [code for code, _ in copy.alarms] == ["relay.forked"]
        assert await copy.stored() == []
        assert await copied(nats_bus) == stored


async def test_rubbish_on_the_services_own_subject_is_an_alarm(nats_bus: Bus) -> None:
    await make_stream(nats_bus)
    async with nats_bus.client("policy") as nc:
        await nc.jetstream().publish(subjects.event("acme", "u-1", "policy", "0" * 32), b"rubbish")
    async with copying(nats_bus) as copy:
        with pytest.raises(Tampered):
            await copy.save(1)
        assert [code for code, _ in copy.alarms] == ["relay.forked"]
        assert len(await messages(nats_bus)) == 1
