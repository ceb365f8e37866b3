"""The `eventsourcing` library's own recorder cases, importable without the cipher that only its factory cases use.

Use it as `library_cases.persistence`: a case that is imported by name would be collected as it is, abstract.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest import mock


def _cases() -> Any:
    cipher = ModuleType("eventsourcing.cipher")
    cipher.AESCipher = None  # type: ignore[attr-defined] # the real one needs pycryptodome
    with mock.patch.dict(sys.modules, {"eventsourcing.cipher": cipher}):
        return import_module("eventsourcing.tests.persistence")


persistence = _cases()
