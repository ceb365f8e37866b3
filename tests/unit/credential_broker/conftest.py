"""Fixtures of the credential broker's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from unit.credential_broker.brokers import Broker, Clocks, running


@pytest.fixture
def clocks() -> Clocks:
    """The clocks that `broker` goes by."""
    return Clocks()


@pytest.fixture
async def broker(tmp_path: Path, clocks: Clocks) -> AsyncIterator[Broker]:
    """A broker that started a second ago, in `tmp_path`."""
    async with running(tmp_path, clocks) as made:
        yield made
