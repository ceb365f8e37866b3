"""Fixtures that every test may name."""

from fixtures_nats import nats_bus, shared_nats_bus

__all__ = ["nats_bus", "shared_nats_bus"]
