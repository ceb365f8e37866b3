"""The runtime without a bus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from unit.agent_runtime.runtime import Runtime
from unit.agent_runtime.world import World, world_in


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose store is closed at the end."""
    with world_in(tmp_path) as made:
        yield made
        await made.store.close()


@pytest.fixture
async def runtime(world: World, tmp_path: Path) -> AsyncIterator[Runtime]:
    """All behind the handlers, in that world."""
    made = Runtime(world, tmp_path)
    yield made
    await made.queue.close()
