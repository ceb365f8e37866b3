"""The event store: aggregates of the `eventsourcing` library, saved in groups, encrypted per user, chained, relayed.

chain.py        how events are numbered and linked, and where a chain breaks
recorders.py    SQLite: the library's recorder with tenant, user, instant and hashes
postgres.py     PostgreSQL: the same (needs the extra `postgres`)
transcoder.py   event state as JSON bytes
mapper.py       event <-> ciphertext under the user's key; stated topics; old events upcast
groupcommit.py  saves that wait together share one transaction, in a thread
store.py        one chain as a service uses it: saves, reads, verification
witness.py      what the stream says of a store, and the saves that wait for it
stores.py       a service's chains, one per tenant, with their relays
jetstream.py    a connection on which order can be relied upon
relay.py        the store's log into the tenant's stream, in order, nothing missing
"""
