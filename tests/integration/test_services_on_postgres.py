"""The services themselves with their event stores in PostgreSQL: recorded, relayed, checked, and there after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fixtures_nats import Bus
from integration.postgres_server import databases, dsn
from integration.test_audit_trails import Platform, settled
from unit.audit.mongo_server import mongo_url

__all__ = ["databases", "dsn", "mongo_url"]


async def test_what_services_keep_in_postgres_is_relayed_checked_and_there_after_a_restart(
    nats_bus: Bus, mongo_url: str, databases: Any, tmp_path: Path
) -> None:
    file = tmp_path / "postgres.dsn"
    file.write_text(databases())
    first = Platform(nats_bus, mongo_url, postgres_dsn_file=file)
    try:
        await first.open()
        bob = first.people["bob"].user
        run = await first.run("bob", 1)
        page = await first.people["bob"].ask("show-trail")
        assert [entry["event"] for entry in page["entries"] if entry["run_id"] == run.id.hex][-1] == (
            "runtime.Run.Completed"
        )
        report = await settled(first)
        assert report["ok"], report
    finally:
        await first.close()
    assert list((nats_bus.home.path / "store").glob("*/acme.sqlite")) == []

    second = Platform(nats_bus, mongo_url, postgres_dsn_file=file)
    try:
        await second.start()
        stored = second.runtime.stores.of("acme")
        await stored.open()
        before = stored.head().notification_id
        assert before == 6
        assert (await stored.load(type(run), run.id)).status == "completed"
        again = await second.run_of(bob, 2)
        assert stored.head().notification_id == before + 6
        report = await settled(second)
        acme = next(tenant for tenant in report["tenants"] if tenant["tenant"] == "acme")
        assert (report["ok"], acme["effects_checked"]) == (True, 4), report
        assert again.id != run.id
    finally:
        await second.close()
