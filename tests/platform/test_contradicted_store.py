"""`remit up` on a home in which one tenant's store of one service is lost or damaged: the others are served, and it
says which store it is and why."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fixtures_platform import Platform, running_platform

from remit.client import connect
from remit_contracts.errors import NotSignedIn, Tampered
from remit_contracts.subjects import SERVICES

QUESTION = "how many flights"


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped demo home in which every service has events of acme."""
    folder = tmp_path_factory.mktemp("lived-in")
    secret = folder / "secret"
    secret.write_text("not-a-real-secret")
    with running_platform(folder, "--demo") as started:
        as_analyst = ("--as", "acme/analyst")
        assert started.cli("run", "analyst", QUESTION, *as_analyst).code == 0
        assert started.cli("run", "analyst", QUESTION, "--as", "acme/reader").code == 3  # a denial: policy's event
        assert started.cli("trail", "show", *as_analyst[1:]).code == 0
        added = ("connections", "add", "desk", "--kind", "bearer", "--host", "desk.example:443", *as_analyst)
        found = started.cli(*added, "--secret-file", str(secret))
        assert found.code == 0, found.err
    return folder / "home"


@contextmanager
def again(lived_in: Path, folder: Path, *arguments: str) -> Iterator[Platform]:
    """A copy of the home, not yet started, whose processes are ended whatever happens."""
    shutil.copytree(lived_in, folder / "home")
    platform = Platform(folder / "home", *arguments)
    try:
        yield platform
    finally:
        platform.stop()


def store(platform: Platform, service: str, tenant: str = "acme") -> Path:
    path = platform.home / "store" / service / f"{tenant}.sqlite"
    assert path.exists()
    return path


def lose(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def damage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def in_one_line(text: str) -> str:
    return " ".join(text.split())


CASES = [(service, harm) for harm in (lose, damage) for service in SERVICES]
"""Each starts a platform: of every second one the long run takes care."""


@pytest.mark.parametrize(
    ("service", "harm"),
    [pytest.param(*case, marks=pytest.mark.slow if number % 2 else ()) for number, case in enumerate(CASES)],
)
def test_one_tenants_store_holds_up_no_other_and_is_named(lived_in, tmp_path, service, harm) -> None:
    with again(lived_in, tmp_path, "--demo") as platform:
        harm(store(platform, service))
        platform.start()
        assert f"{service} does not serve acme:" in in_one_line(platform.log), platform.log

        status = platform.cli("status", "--output", "json")
        assert status.code == 6, status.out
        assert status.json["ready"] is True
        assert [(it["service"], it["tenant"]) for it in status.json["contradicted"]] == [(service, "acme")]
        assert status.json["contradicted"][0]["reason"]
        assert "remit audit check" in status.json["contradicted"][0]["way_out"]
        doctor = platform.cli("doctor", "--output", "json")
        assert doctor.code == 6, doctor.out
        (finding,) = [it for it in doctor.json if not it["ok"]]
        assert finding["found"].startswith(f"{service} does not serve acme")

        served = platform.cli("run", "analyst", QUESTION, "--as", "globex/analyst")
        assert served.code == 0, served.err
        asked = ("trail", "show", "acme/analyst") if service == "audit" else ("run", "analyst", QUESTION)
        refused = platform.cli(*asked, *(() if service == "audit" else ("--as", "acme/analyst")), "--output", "json")
        if service != "credential-broker":  # which this run asks for nothing
            assert refused.code == 6, refused.out
            assert refused.json["error"]["code"] == "tampered.store"
        else:
            listed = platform.cli("connections", "list", "--as", "acme/analyst", "--output", "json")
            assert listed.code == 6, listed.out


async def test_nobody_is_let_in_on_the_word_of_a_contradicted_directory(lived_in, tmp_path) -> None:
    """A directory from before somebody was disabled would let them in again."""
    with again(lived_in, tmp_path) as platform:
        platform.start()
        token = platform.token("acme/analyst")
        platform.stop()
        older = shutil.copy(store(platform, "auth"), tmp_path / "older.sqlite")
        platform.start()
        assert platform.cli("users", "disable", "acme/analyst").code == 0
        platform.stop()
        lose(store(platform, "auth"))
        shutil.copy(older, platform.home / "store" / "auth" / "acme.sqlite")
        platform.start()
        with pytest.raises(NotSignedIn):
            async with connect(platform.endpoints["nats"], token=token) as client:
                await client.whoami()
        assert "the tenant's log is contradicted" in (platform.home / "logs" / "auth.log").read_text()


def test_the_platforms_own_store_is_needed_and_up_says_so_with_exit_6(lived_in, tmp_path) -> None:
    with again(lived_in, tmp_path) as platform:
        damage(store(platform, "policy", "platform"))
        up = platform.cli("up")
        assert up.code == Tampered("").exit_code, up.err
        assert "policy: store: the store of platform/policy is not used" in in_one_line(up.err)
        assert not (platform.home / "endpoints.json").exists()


def test_a_ledger_that_contradicts_its_checkpoint_ends_up_with_its_reason_and_exit_6(lived_in, tmp_path) -> None:
    """Nothing is signed on top of it, and what audit cannot witness is not done: see services/audit/README.md."""
    with again(lived_in, tmp_path) as platform:
        with closing(sqlite3.connect(platform.home / "ledger" / "acme.sqlite")) as ledger, ledger:
            ledger.execute("DELETE FROM entries WHERE idx = (SELECT max(idx) FROM entries)")
        up = platform.cli("up")
        assert up.code == Tampered("").exit_code, up.err
        assert "audit: streams: the ledger of acme takes no events" in in_one_line(up.err)
