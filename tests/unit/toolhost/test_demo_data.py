"""The demo's data is what its origin says, and becomes tools and agents that the runtime can read."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from remit import demo_data
from remit_agent_runtime.agents import AgentFolder
from remit_agent_runtime.toolhost.catalog import Catalog
from remit_agent_runtime.toolhost.definitions import HttpTool

PACKAGE = Path(demo_data.__file__).parent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("home")
    demo_data.install(path)
    return path


def rows(home: Path, source: str, sql: str) -> list[Any]:
    with closing(sqlite3.connect(home / "sources" / f"{source}.sqlite")) as connection:
        return connection.execute(sql).fetchall()


def test_every_committed_file_has_the_hash_that_its_origin_names() -> None:
    said = dict(re.findall(r"\| `(\S+\.csv\.gz)` \|[^`]*`([0-9a-f]{64})`", (PACKAGE / "ORIGIN.md").read_text()))
    found = {
        path.relative_to(PACKAGE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in PACKAGE.rglob("*.csv.gz")
    }
    assert said == found
    assert sum(path.stat().st_size for path in PACKAGE.rglob("*.csv.gz")) < 2_500_000


def test_the_sources_hold_the_rows_of_the_files_with_numbers_as_numbers(home: Path) -> None:
    assert rows(home, "acme/flights", "SELECT count(*), min(month), max(month) FROM flights") == [(27_004, 1, 1)]
    assert rows(home, "acme/flights", "SELECT count(*), count(DISTINCT tailnum) FROM planes") == [(3_322, 3_322)]
    odd = "SELECT typeof(distance), typeof(tailnum), dep_time FROM flights WHERE dep_delay IS NULL LIMIT 1"
    assert rows(home, "acme/flights", odd) == [("integer", "text", None)]
    assert rows(home, "globex/weather", "SELECT count(*), typeof(max(temp)) FROM weather") == [(26_115, "real")]
    assert rows(home, "acme/flights", "SELECT count(*) FROM flights WHERE tailnum = 'NA' OR dest = 'NA'") == [(0,)]


def test_installing_again_changes_nothing_and_keeps_edits(home: Path) -> None:
    edited = home / "agents/acme/helpdesk.yaml"
    edited.write_text(edited.read_text().replace("limit: 3", "limit: 2"))
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    demo_data.install(home)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()} == before


def test_a_source_of_another_version_is_made_anew(home: Path) -> None:
    source = home / "sources/globex/weather.sqlite"
    source.write_bytes(b"half of a file, left by a crash")
    demo_data.install(home)
    assert rows(home, "globex/weather", "SELECT count(*) FROM airports") == [(3,)]


def test_nobody_else_on_the_machine_reads_a_source(home: Path) -> None:
    for source in (home / "sources").rglob("*.sqlite"):
        assert stat.S_IMODE(source.stat().st_mode) == 0o600


def test_nobody_else_on_the_machine_looks_into_a_folder_of_the_home(tmp_path: Path) -> None:
    (tmp_path / "repo/docs/deep").mkdir(parents=True)
    (tmp_path / "repo/docs/deep/a.md").write_text("# A")
    demo_data.install(tmp_path / "home", documents=tmp_path / "repo")
    folders = [tmp_path / "home", *(path for path in (tmp_path / "home").rglob("*") if path.is_dir())]
    assert tmp_path / "home/documents/acme/docs/deep" in folders
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folders} == {
        path.name: oct(0o700) for path in folders
    }


@pytest.mark.parametrize("tenant", demo_data.TENANTS)
def test_every_agent_and_tool_can_be_read_by_the_runtime(home: Path, tenant: str) -> None:
    tools = [descriptor.id for descriptor in Catalog(home).descriptors(tenant)]
    folder = AgentFolder(home / "agents")
    assert folder.names(tenant) == ["analyst", "helpdesk"]
    for name in folder.names(tenant):
        assert folder.get(tenant, name, tools=tools).tools


def test_a_tenant_gets_its_own_documents_from_the_folder_given(tmp_path: Path) -> None:
    (tmp_path / "repo/docs/deep").mkdir(parents=True)
    (tmp_path / "repo/README.md").write_text("# Read me")
    (tmp_path / "repo/docs/deep/a.md").write_text("# A")
    (tmp_path / "repo/secret.txt").write_text("no document")
    demo_data.install(tmp_path / "home", documents=tmp_path / "repo")
    for tenant in demo_data.TENANTS:
        root = tmp_path / "home/documents" / tenant
        names = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        assert names == {"README.md", "docs/deep/a.md", "demo-data.md"}


def test_the_weather_desk_can_be_pointed_to_where_it_listens(home: Path) -> None:
    demo_data.point_weather_desk(home, "127.0.0.1:4321")
    desk = Catalog(home).find("acme", "weather-desk")
    assert isinstance(desk, HttpTool)
    assert desk.url == "http://127.0.0.1:4321/conditions"
