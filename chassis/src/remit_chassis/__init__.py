"""How any Remit service runs: its life, its place on the bus, its event store, its settings and its telemetry.

A module is admitted here when two services call it and it holds no word of any service's domain.
"""
