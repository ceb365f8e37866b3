"""Fixtures of these tests."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from unit.audit.mongo_server import mongo_url
from unit.audit.recorded_home import recorded_home

__all__ = ["mongo_url"]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded home that no test changes: they work on copies."""
    return asyncio.run(recorded_home(tmp_path_factory.mktemp("recorded") / "home")).path


@pytest.fixture
def home(pristine: Path, tmp_path: Path) -> Path:
    """A copy of it, of a test's own."""
    return shutil.copytree(pristine, tmp_path / "home")
