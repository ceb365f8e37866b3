"""The read model of trails in MongoDB, through motor: a database per tenant, `remit_{tenant}`.

    trail      one document an entry, its `_id` and `index` the ledger's; the state is ciphertext
    positions  {"_id": "trail", "index": the last index that is projected}

Everything here can be dropped and projected again from the ledger. Motor is imported when first needed, and nowhere
else. Only what both MongoDB and the wheel `nx-27017` do is used: that one sorts `_id` as text, indexes no pair with it,
and replaces no document that holds bytes, so there is an `index` and every write is an upsert with `$set`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from remit_audit.ledger_reader import Entry
from remit_contracts.errors import Tampered, Unavailable
from remit_contracts.events import Envelope

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase

ANSWER_MILLISECONDS = 2000
_FIELDS = tuple(field.name for field in msgspec.structs.fields(Envelope))


class TrailRepository:
    """Made on a running loop. Every method raises Unavailable when the database does not answer."""

    def __init__(self, url: str) -> None:
        from motor.motor_asyncio import AsyncIOMotorClient

        self._client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
            url,
            serverSelectionTimeoutMS=ANSWER_MILLISECONDS,
            connectTimeoutMS=ANSWER_MILLISECONDS,
            socketTimeoutMS=10 * ANSWER_MILLISECONDS,
            appname="remit-audit",
        )
        self._indexed: set[str] = set()

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    async def position(self, tenant: str) -> int:
        """The last index that is projected; -1 before the first."""
        with _asking():
            found = await self._database(tenant).positions.find_one({"_id": "trail"})
            return int(found["index"]) if found else -1

    async def put(self, tenant: str, entries: Sequence[Entry]) -> None:
        """Keep entries, and then the position behind them; what is there already is replaced by the same."""
        from pymongo import UpdateOne

        if not entries:
            return
        with _asking():
            database = self._database(tenant)
            if tenant not in self._indexed:
                await database.trail.create_index([("user", 1), ("index", 1)])
                self._indexed.add(tenant)
            writes = [UpdateOne({"_id": entry.index}, {"$set": document_of(entry)}, upsert=True) for entry in entries]
            await database.trail.bulk_write(writes)
            position = {"index": entries[-1].index}
            await database.positions.update_one({"_id": "trail"}, {"$set": position}, upsert=True)

    async def of_user(self, tenant: str, user: str, after: int, limit: int) -> list[Entry]:
        """A user's entries with an index over `after`, in order; raises Tampered for a document that was altered."""
        with _asking():
            found = (
                self._database(tenant).trail.find({"user": user, "index": {"$gt": after}}).sort("index", 1).limit(limit)
            )
            return [entry_of(document) async for document in found]

    async def fingerprint(self, tenant: str) -> str:
        """SHA-256 in hex over every document in order: equal models have equal ones."""
        digest = sha256()
        with _asking():
            async for document in self._database(tenant).trail.find({}).sort("index", 1):
                entry = entry_of(document)
                digest.update(b"%d:" % entry.index + entry.envelope.encoded() + entry.envelope.hash)
        return digest.hexdigest()

    async def drop(self, tenant: str) -> None:
        """Forget the tenant's read model."""
        with _asking():
            await self._client.drop_database(self._name(tenant))
            self._indexed.discard(tenant)

    def _database(self, tenant: str) -> AsyncIOMotorDatabase[dict[str, Any]]:
        return self._client[self._name(tenant)]

    @staticmethod
    def _name(tenant: str) -> str:
        return f"remit_{tenant}"


def document_of(entry: Entry) -> dict[str, Any]:
    """An entry as a document: its index, and the envelope's fields under their own names."""
    return {"index": entry.index, **msgspec.structs.asdict(entry.envelope)}


def entry_of(document: dict[str, Any]) -> Entry:
    """The entry in a document; raises Tampered unless its fields give its hash."""
    try:
        envelope = msgspec.convert({name: document[name] for name in _FIELDS}, Envelope, builtin_types=(bytes,))
        if envelope.intact and document["index"] == document["_id"]:
            return Entry(int(document["index"]), envelope)
    except (msgspec.ValidationError, KeyError, UnicodeEncodeError):
        pass
    raise Tampered(f"entry {document.get('_id')!r:.20} of the read model is not what was projected")


@contextmanager
def _asking() -> Iterator[None]:
    from pymongo.errors import PyMongoError

    try:
        yield
    except PyMongoError as fault:
        raise Unavailable(f"the read models do not answer: {str(fault)[:200]}") from None
