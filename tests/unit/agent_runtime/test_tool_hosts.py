"""Where the tools of a home send a connection's secret, read from the files that anybody may have edited."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from remit_agent_runtime.toolhost.definitions import ToolInvalid

TOOLS = """
tools:
  - {id: ask, kind: http, url: "https://Desk.example/ask", connection: desk}
  - {id: tell, kind: http, url: "https://desk.example:443/tell", connection: desk, method: POST}
  - {id: local, kind: http, url: "http://127.0.0.1:8765/x", connection: desk}
  - {id: plain, kind: http, url: "http://[::1]/x", connection: desk}
  - {id: other, kind: http, url: "https://other.example/x", connection: other}
  - {id: days-between, kind: function, entry: days_between}
"""


def hosts(home: Path, tenant: str, connection: str) -> list[str]:
    [found] = entry_points(group="remit.offline", name="tool-hosts")
    return list(found.load()(home=home, tenant=tenant, connection=connection)["hosts"])


def test_the_hosts_are_those_of_the_tools_that_name_the_connection_each_once(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "acme.yaml").write_text(TOOLS)
    assert hosts(tmp_path, "acme", "desk") == ["desk.example:443", "127.0.0.1:8765", "[::1]:80"]
    assert hosts(tmp_path, "acme", "other") == ["other.example:443"]
    assert hosts(tmp_path, "acme", "nobodys") == []
    assert hosts(tmp_path, "globex", "desk") == []


def test_a_file_of_tools_that_does_not_hold_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "acme.yaml").write_text("tools: [{id: ask, kind: nosuch}]")
    with pytest.raises(ToolInvalid):
        hosts(tmp_path, "acme", "desk")
