"""What is said on Remit's bus: subjects, identifiers, commands, answers, decisions, permits, leases, events, errors.

Everything here is data and pure functions: no I/O, no clock, no randomness. Services and the client library both depend
on it and on nothing of each other's.
"""
