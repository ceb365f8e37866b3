"""Between domain events and what is stored: JSON encrypted with AES-256-GCM under the user's data key.

The stored state is a random 12-byte nonce followed by ciphertext and tag. The associated data is
`tenant/user|originator|version|topic`, so a state cannot be moved to another user, aggregate, place or meaning. An old
event is upcast by the library: `class_version = 2` and `upcast_v1_v2(state)` on its class.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eventsourcing.domain import CanMutateAggregate
from eventsourcing.persistence import Mapper, StoredEvent
from eventsourcing.utils import resolve_topic

from remit_chassis.eventstore.transcoder import StateTranscoder
from remit_chassis.nonces import Nonces
from remit_contracts.errors import Tampered
from remit_contracts.events import Envelope
from remit_contracts.identity import data_key_scope

_NONCE_BYTES = 12
_TOPIC = re.compile(r"[a-z][a-z-]*(?:\.[A-Z][A-Za-z0-9]*){2}", re.ASCII)


class EncryptingMapper(Mapper[UUID]):
    """The library's mapper for one tenant; the user and the key come with each event."""

    def __init__(self, tenant: str) -> None:
        super().__init__(StateTranscoder())
        self._tenant = tenant
        self._stated: set[type[Any]] = set()
        self._scopes: dict[str, bytes] = {}
        self._nonces = Nonces(_NONCE_BYTES)

    def seal(self, event: CanMutateAggregate[UUID], user: str, key: bytes) -> StoredEvent:
        """Encrypt for storage; raises TypeError for an event class that states no topic of its own."""
        if type(event) not in self._stated:
            self._stated.add(_with_stated_topic(type(event)))
        topic: str = getattr(event, "TOPIC")  # noqa: B009 (that it states one was checked above)
        state = dict(vars(event))  # as the library's `to_stored_event` does, without its detours: this is every event
        del state["originator_id"], state["originator_version"]
        if (class_version := getattr(type(event), "class_version", 1)) > 1:
            state["class_version"] = class_version
        nonce = self._nonces.next()
        bound = self._bound(user, event.originator_id.hex, event.originator_version, topic)
        sealed = nonce + AESGCM(key).encrypt(nonce, self.transcoder.encode(state), bound)
        return StoredEvent(event.originator_id, event.originator_version, topic, sealed)

    def open(self, envelope: Envelope, key: bytes) -> CanMutateAggregate[UUID]:
        """Decrypt, decode and upcast; raises Tampered when the state is not what was sealed here for this user.

        The topic is resolved only after it was authenticated: resolving imports what it names.
        """
        bound = self._bound(envelope.user, envelope.originator_id, envelope.originator_version, envelope.topic)
        nonce, sealed = envelope.state[:_NONCE_BYTES], envelope.state[_NONCE_BYTES:]
        try:
            state = AESGCM(key).decrypt(nonce, sealed, bound)
        except (InvalidTag, ValueError):
            chain = f"{envelope.tenant}/{envelope.service}"
            raise Tampered(f"event {envelope.notification_id} of {chain} does not open with its user's key") from None
        event = self.to_domain_event(
            StoredEvent(UUID(envelope.originator_id), envelope.originator_version, envelope.topic, state)
        )
        if not isinstance(event, CanMutateAggregate):
            raise TypeError(f"topic {envelope.topic} names no event of an aggregate")
        return event

    def _bound(self, user: str, originator: str, version: int, topic: str) -> bytes:
        scope = self._scopes.get(user)
        if scope is None:
            if len(self._scopes) >= 10_000:
                self._scopes.clear()
            scope = self._scopes[user] = data_key_scope(self._tenant, user)
        return b"%s|%s|%d|%s" % (scope, originator.encode(), version, topic.encode())


def _with_stated_topic(event_class: type[Any]) -> type[Any]:
    """The class, when it states its own TOPIC: the library's default is the import path, and moving a file would orphan
    the history."""
    topic = getattr(event_class, "TOPIC", "")
    registered: object = resolve_topic(topic) if _TOPIC.fullmatch(topic) else None
    if registered is not event_class:
        raise TypeError(f"{event_class.__qualname__} must state its own TOPIC: service.Aggregate.Event, not {topic!r}")
    return event_class
