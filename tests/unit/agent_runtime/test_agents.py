"""Agents' definitions: read strictly, refused with the file, the field and the way out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit_agent_runtime.agents import AgentFolder, AgentInvalid, parse
from remit_contracts.errors import Absent

GOOD = """
name: analyst
description: Answers questions about flights.
instructions: You answer from the source.
model: default
tools: [sql, docs]
limits: {model_calls: 5, tool_calls: 3, seconds: 60}
on_denied: tell
script:
  - when: "busiest"
    call: {tool: sql, args: {sql: "SELECT 1"}}
    answer: "{result}"
  - when: "both"
    call: [{tool: sql, args: {sql: "SELECT 1"}}, {tool: docs, args: {query: x}}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "analyst.yaml").write_text(GOOD)
    return tmp_path


def test_a_definition_is_read_with_its_defaults(folder: Path) -> None:
    (folder / "acme" / "plain.yaml").write_text("name: plain\n")
    definition = AgentFolder(folder).get("acme", "plain", tools=[])
    assert (definition.model, definition.on_denied, definition.limits.tool_calls) == ("default", "stop", 20)


def test_one_call_or_several_are_written_alike(folder: Path) -> None:
    definition = AgentFolder(folder).get("acme", "analyst", tools=["sql", "docs"])
    assert [[call.tool for call in rule.call] for rule in definition.script] == [["sql"], ["sql", "docs"]]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("colour: red", "colour: no such field"),
        ("model: gpt-5", "model: must be `default`"),
        ("model: 7", "model"),
        ("tools: sql", "tools"),
        ("tools: [SQL]", "tools.0"),
        ("on_denied: ignore", "on_denied"),
        ("limits: {seconds: -1}", "limits.seconds"),
        ("limits: {tokens: 3}", "limits.tokens"),
        ('script: [{when: "("}]', "script.0.when: is no regular expression"),
        ("name: other", "name is 'other' and must be the file's name"),
    ],
)
def test_a_bad_field_is_refused_by_name(line: str, said: str) -> None:
    content = line if line.startswith("name") else f"name: analyst\n{line}\n"
    with pytest.raises(AgentInvalid) as refused:
        parse(content.encode(), name="analyst", file="analyst.yaml")
    assert refused.value.refusal_code == "agent.invalid"
    assert "analyst.yaml" in refused.value.reason
    assert said in refused.value.reason


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"- a list",
        b"a: [",
        b"\xff\xfe\x00",
        b"name: !!python/object/apply:os.system ['true']",
        b"[" * 5000,
        b"x" * 300_000,
    ],
)
def test_what_is_no_definition_is_refused(content: bytes) -> None:
    with pytest.raises(AgentInvalid):
        parse(content, name="analyst", file="analyst.yaml")


def test_an_unknown_tool_is_refused_with_those_that_there_are(folder: Path) -> None:
    with pytest.raises(AgentInvalid, match=r"analyst\.yaml: tools: docs is not among the tenant's tools \(sql\)"):
        AgentFolder(folder).get("acme", "analyst", tools=["sql"])


def test_a_script_calls_only_tools_of_its_agent(folder: Path) -> None:
    (folder / "acme" / "sly.yaml").write_text("name: sly\nscript: [{when: x, call: {tool: sql}}]\n")
    with pytest.raises(AgentInvalid, match="not listed under tools"):
        AgentFolder(folder).get("acme", "sly", tools=["sql"])


@pytest.mark.parametrize(("tenant", "name"), [("acme", "nobody"), ("globex", "analyst"), ("nowhere", "analyst")])
def test_an_agent_that_is_not_there_is_absent(folder: Path, tenant: str, name: str) -> None:
    with pytest.raises(Absent):
        AgentFolder(folder).get(tenant, name, tools=["sql", "docs"])


def test_a_changed_file_is_read_again_and_has_another_digest(folder: Path) -> None:
    agents = AgentFolder(folder)
    before = agents.get("acme", "analyst", tools=["sql", "docs"])
    path = folder / "acme" / "analyst.yaml"
    path.write_text(GOOD.replace("seconds: 60", "seconds: 61"))
    os.utime(path, ns=(1, 1))
    after = agents.get("acme", "analyst", tools=["sql", "docs"])
    assert before.digest != after.digest
    assert after.limits.seconds == 61


def test_files_whose_names_are_no_identifiers_are_no_agents(folder: Path) -> None:
    (folder / "acme" / "Bad Name.yaml").write_text(GOOD)
    (folder / "acme" / "notes.txt").write_text("")
    assert AgentFolder(folder).names("acme") == ["analyst"]
    assert AgentFolder(folder).names("globex") == []
