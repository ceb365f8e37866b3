"""Fixtures that every test may name."""

from fixtures_nats import nats_bus, shared_nats_bus
from fixtures_platform import platform

__all__ = ["nats_bus", "platform", "shared_nats_bus"]
