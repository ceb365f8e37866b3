"""A tenant's tools are read strictly, and describe themselves."""

from __future__ import annotations

import os
from pathlib import Path

import jsonschema
import pytest
from unit.toolhost.rig import Rig

from remit_agent_runtime.toolhost.catalog import Catalog, parse
from remit_agent_runtime.toolhost.definitions import ToolInvalid
from remit_contracts.errors import Absent

HTTP = "{id: x, kind: http, connection: desk, url: "


def test_every_tool_describes_itself_for_a_model_and_for_policy(rig: Rig) -> None:
    sql, docs, days, desk = Catalog(rig.home).descriptors("acme")
    assert (sql.id, sql.kind, sql.data_sources, sql.connection) == ("sql", "sql", ("sql",), None)
    assert "flights(carrier, flight, tailnum, owner_hint, dest)" in sql.description
    assert "notes" not in sql.description
    assert sql.enforces == ("mask_fields", "max_rows", "row_filter")
    assert docs.data_sources == ("docs",)
    assert days.parameters["required"] == ["start", "end"]
    assert (desk.connection, desk.enforces, desk.parameters["required"]) == ("desk", (), ["airport"])
    for descriptor in (sql, docs, days, desk):
        jsonschema.Draft202012Validator.check_schema(descriptor.parameters)
        assert descriptor.parameters["additionalProperties"] is False


def test_a_digest_changes_with_the_tool_and_stays_without(rig: Rig) -> None:
    def digests() -> dict[str, str]:
        return {each.id: each.digest for each in Catalog(rig.home).descriptors("acme")}

    before = digests()
    assert digests() == before
    rig.write_tools(url="http://127.0.0.1:2/conditions/{airport}")
    after = digests()
    assert {name for name in before if before[name] != after[name]} == {"desk"}


def test_a_changed_file_and_a_changed_source_are_noticed(rig: Rig) -> None:
    catalog = Catalog(rig.home)
    assert len(catalog.descriptors("acme")) == 4
    path = rig.home / "tools/acme.yaml"
    path.write_text("tools: [{id: days-between, kind: function, entry: days_between}]")
    assert [each.id for each in catalog.descriptors("acme")] == ["days-between"]
    path.unlink()
    assert catalog.descriptors("acme") == []


def test_a_tenant_without_a_file_has_no_tools_and_one_tool_is_absent(rig: Rig) -> None:
    assert Catalog(rig.home).descriptors("globex") == []
    with pytest.raises(Absent):
        Catalog(rig.home).find("globex", "sql")
    with pytest.raises(Absent):
        Catalog(rig.home).find("acme", "rm")


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        ("{id: x, kind: shell, command: ls}", "shell"),
        ("{id: x}", "kind"),
        ("{kind: sql, source: sources/acme/a.sqlite}", "id"),
        ("{id: X_Y, kind: function, entry: days_between}", "regex"),
        ('{id: "x\\n", kind: function, entry: days_between}', "regex"),
        ("{id: x, kind: function, entry: os.system}", "no function of the tool host"),
        ("{id: x, kind: function, entry: days_between, extra: 1}", "extra"),
        ("{id: x, kind: sql, source: /etc/passwd}", "relative path inside the home"),
        ("{id: x, kind: sql, source: sources/acme/../globex/a.sqlite}", "without `..`"),
        ("{id: x, kind: sql, source: sources/globex/a.sqlite}", "must lie below sources/acme/"),
        ("{id: x, kind: sql, source: sources/acmex/a.sqlite}", "must lie below sources/acme/"),
        ("{id: x, kind: sql, source: sources/acme/a.sqlite, max_rows: 0}", "max_rows"),
        ("{id: x, kind: sql, source: sources/acme/a.sqlite, max_rows: many}", "max_rows"),
        ("{id: x, kind: documents, folder: documents}", "must lie below documents/acme/"),
        (HTTP + "'ftp://desk.example/'}", "must begin with https://"),
        (HTTP + "'http://desk.example/'}", "in the clear"),
        (HTTP + "'http://127.0.0.1.evil.example/'}", "in the clear"),
        (HTTP + "'https://user:pw@desk.example/'}", "must hold no credential"),
        (HTTP + "'https://desk.example/?a=1'}", "host and path only"),
        (HTTP + "'https://{host}/a'}", "host and path only"),
        (HTTP + "'https://desk.example:99999/a'}", "Port"),
        (HTTP + "'https://desk.example/{who}'}", "not among the parameters"),
        (HTTP + "'https://d.example/{a}', parameters: {a: {type: string, required: false}}}", "must be required"),
        (HTTP + "'https://d.example/', parameters: {a: {type: object}}}", "object"),
        ("{id: x, kind: http, url: 'https://d.example/'}", "connection"),
        ("{id: x, kind: function, entry: days_between}, {id: x, kind: function, entry: days_between}", "twice"),
        ("1", "Expected `object`"),
    ],
)
def test_a_file_that_is_no_catalog_is_refused_with_the_reason(tool: str, told: str) -> None:
    with pytest.raises(ToolInvalid) as refused:
        parse(f"tools: [{tool}]".encode(), tenant="acme", file="tools/acme.yaml")
    assert told in refused.value.reason
    assert "tools/acme.yaml" in refused.value.reason


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"[",
        b"tools: 1",
        b"[]",
        b"tools: []\nmore: 1",
        b"!!python/object/apply:os.system [ls]",
        b"&a [*a]",
    ],
)
def test_a_file_that_is_no_yaml_of_ours_is_refused(content: bytes) -> None:
    with pytest.raises(ToolInvalid):
        parse(content, tenant="acme", file="tools/acme.yaml")


def test_a_source_that_is_not_there_is_told(rig: Rig) -> None:
    (rig.home / "sources/acme/flights.sqlite").unlink()
    with pytest.raises(ToolInvalid, match="cannot be read"):
        Catalog(rig.home).descriptors("acme")


def test_a_link_out_of_the_tenants_folder_is_not_followed(rig: Rig, tmp_path: Path) -> None:
    source = rig.home / "sources/acme/flights.sqlite"
    source.rename(rig.home / "sources/elsewhere.sqlite")
    os.symlink(rig.home / "sources/elsewhere.sqlite", source)
    with pytest.raises(ToolInvalid, match="leads out of"):
        Catalog(rig.home).descriptors("acme")
