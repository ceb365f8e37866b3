"""The tool host: a process of its own that checks each call's permit again, carries it out and withholds what it must.

It is started with an empty environment and one socket. It imports no pydantic-ai, no bus and no event store; what it
holds is the key that opens leases, policy's public key and the broker's.
"""
