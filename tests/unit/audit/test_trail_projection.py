"""The read model of trails on a real server of MongoDB's wire protocol: projected, resumed, rebuilt and equal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from unit.audit.chains import Chain

from remit_audit.ledger import Ledger
from remit_audit.ledger_reader import LedgerReader
from remit_audit.mongo import TrailRepository
from remit_audit.projections import TrailProjection
from remit_contracts.errors import Tampered, Unavailable

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "acme.sqlite", "acme", KEY)
    ledger.receive(Chain("auth").events(700))
    yield ledger
    ledger.close()


@pytest.fixture
def reader(ledger: Ledger) -> Iterator[LedgerReader]:
    reader = LedgerReader(ledger.path, "acme")
    yield reader
    reader.close()


@pytest.fixture
async def repository(mongo_url: str) -> Iterator[TrailRepository]:
    repository = TrailRepository(mongo_url)
    await repository.drop("acme")
    yield repository
    repository.close()


async def test_a_user_s_page_is_the_ledger_s_page(repository: TrailRepository, reader: LedgerReader) -> None:
    assert await TrailProjection(repository, reader).catch_up() == 699
    for user, after, limit in (("u-1", -1, 20), ("u-1", 600, 500), ("u-2", 10, 1), ("u-9", -1, 10)):
        assert await repository.of_user("acme", user, after, limit) == reader.of_user(user, after, limit)


async def test_a_projection_goes_on_where_it_stopped(
    repository: TrailRepository, reader: LedgerReader, ledger: Ledger
) -> None:
    await TrailProjection(repository, reader).catch_up()
    ledger.receive(Chain("policy").events(10))
    later = TrailProjection(repository, reader)
    assert await later.catch_up() == await repository.position("acme") == 709
    assert await repository.of_user("acme", "u-0", 690, 100) == reader.of_user("u-0", 690, 100)


async def test_a_model_rebuilt_from_event_one_equals_the_running_one(
    repository: TrailRepository, reader: LedgerReader, ledger: Ledger
) -> None:
    projection = TrailProjection(repository, reader)
    for _ in range(3):
        ledger.receive([])
        await projection.catch_up()
    running = await repository.fingerprint("acme")
    await repository._database("acme").trail.delete_many({"index": {"$gt": 5}})
    assert await repository.fingerprint("acme") != running
    await projection.rebuild()
    assert await repository.fingerprint("acme") == running


async def test_a_batch_projected_twice_is_there_once(repository: TrailRepository, reader: LedgerReader) -> None:
    entries = reader.following(-1, 10)
    await repository.put("acme", entries)
    await repository.put("acme", entries)
    assert [entry.index for entry in await repository.of_user("acme", "u-0", -1, 100)] == [0, 3, 6, 9]


async def test_a_model_of_another_ledger_is_not_added_to(
    repository: TrailRepository, ledger: Ledger, tmp_path: Path
) -> None:
    await TrailProjection(repository, LedgerReader(ledger.path, "acme")).catch_up()
    (tmp_path / "other").mkdir()
    other = Ledger(tmp_path / "other" / "acme.sqlite", "acme", KEY)
    other.receive(Chain("policy").events(3))
    assert await TrailProjection(repository, LedgerReader(other.path, "acme")).catch_up() == 2
    assert len(await repository.of_user("acme", "u-0", -1, 100)) == 1
    other.close()


async def test_an_altered_document_is_noticed(repository: TrailRepository, reader: LedgerReader) -> None:
    await TrailProjection(repository, reader).catch_up()
    await repository._database("acme").trail.update_one({"_id": 4}, {"$set": {"state": b"edited"}})
    with pytest.raises(Tampered):
        await repository.of_user("acme", "u-1", -1, 10)


async def test_tenants_lie_in_databases_of_their_own(repository: TrailRepository, reader: LedgerReader) -> None:
    await TrailProjection(repository, reader).catch_up()
    assert await repository.of_user("globex", "u-1", -1, 10) == []
    assert await repository.position("globex") == -1


async def test_a_server_that_is_away_is_unavailable(tmp_path: Path) -> None:
    repository = TrailRepository("mongodb://127.0.0.1:1")
    with pytest.raises(Unavailable):
        await repository.position("acme")
    repository.close()
