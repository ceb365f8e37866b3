"""The rig of the tool host's unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.toolhost.rig import Rig, make_rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return make_rig(tmp_path)
