"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from unit.auth.installations import Installation, installation


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        await made.acme()
        made.notices.clear()
        yield made
