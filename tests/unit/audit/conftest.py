"""Fixtures of these tests."""

from unit.audit.mongo_server import mongo_url

__all__ = ["mongo_url"]
