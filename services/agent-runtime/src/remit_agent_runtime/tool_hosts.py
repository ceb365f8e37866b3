"""Where a home's tools send the secret of a connection; entry point `tool-hosts` of the group `remit.offline`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from remit_agent_runtime.toolhost.catalog import Catalog
from remit_agent_runtime.toolhost.definitions import HttpTool


def tool_hosts(*, home: Path, tenant: str, connection: str) -> dict[str, Any]:
    """`{"hosts": ["HOST:PORT", ...]}`: those of the tenant's tools that name the connection, in order, each once.

    Raises ToolInvalid.
    """
    tools = Catalog(home).definitions(tenant).values()
    found = [_authority(tool) for tool in tools if isinstance(tool, HttpTool) and tool.connection == connection]
    return {"hosts": list(dict.fromkeys(found))}


def _authority(tool: HttpTool) -> str:
    """`host:port`, with the scheme's port where the URL has none."""
    url = urlsplit(tool.url)
    return tool.host if url.port else f"{tool.host.rstrip(':')}:{443 if url.scheme == 'https' else 80}"
