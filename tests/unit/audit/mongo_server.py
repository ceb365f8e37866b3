"""A server of MongoDB's wire protocol from the wheel `nx-27017`, on a free port and a directory of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

STARTS_WITHIN_SECONDS = 20


@pytest.fixture(scope="module")
def mongo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`mongodb://127.0.0.1:PORT`, stopped by its process id."""
    directory: Path = tmp_path_factory.mktemp("mongo")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = ["--data-dir", str(directory), "-p", str(port)]
    options += ["--pid-file", str(directory / "pid"), "--log-file", str(directory / "log")]
    with (directory / "output").open("wb") as output:
        server = subprocess.Popen([Path(sys.executable).parent / "nx-27017", *options], stdout=output, stderr=output)
        try:
            for _ in range(STARTS_WITHIN_SECONDS * 50):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                try:
                    server.wait(0.02)
                except subprocess.TimeoutExpired:
                    continue
                raise AssertionError((directory / "output").read_text()[-2000:])
            yield f"mongodb://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)
