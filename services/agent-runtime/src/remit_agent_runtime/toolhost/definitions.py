"""The kinds of tools, as `tools/{tenant}.yaml` writes them, and the rules that a shape alone cannot say.

ToolInvalid   Refusal, code "tool.invalid": a tool's definition, or what it stands on, cannot be used
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from remit_agent_runtime.toolhost.functions import FUNCTIONS
from remit_contracts.errors import Refusal

PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]{0,62})\}", re.ASCII)

Label = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")]
ParameterName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,62}\Z")]
Text = Annotated[str, Meta(max_length=2_000)]


class ToolInvalid(Refusal):
    """A tool's definition cannot be used, or what it names is not there."""

    code = "tool.invalid"


class _Tool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """`description` is what a model reads."""

    id: Label
    description: Text = ""


class FunctionTool(_Tool, frozen=True, kw_only=True, tag="function"):
    """One of the functions that are shipped, by name. Foreign code never runs in the tool host: it holds keys."""

    entry: str


class SqlTool(_Tool, frozen=True, kw_only=True, tag="sql"):
    """SELECTs on a SQLite file, `source`, below the home's `sources/{tenant}/`.

    `reference_tables` stay whole under a row filter on a column that they do not have; other tables without that column
    are hidden then, since a filter that cannot be applied must not be skipped.
    """

    source: str
    data_source: Label | None = None
    reference_tables: tuple[str, ...] = ()
    max_rows: Annotated[int, Meta(ge=1, le=10_000)] = 500
    max_bytes: Annotated[int, Meta(ge=1_024, le=1_048_576)] = 262_144
    statement_seconds: Annotated[float, Meta(gt=0, le=60)] = 2.0


class DocumentsTool(_Tool, frozen=True, kw_only=True, tag="documents"):
    """Full-text search over the Markdown files in `folder`, below the home's `documents/{tenant}`."""

    folder: str
    data_source: Label | None = None
    passages: Annotated[int, Meta(ge=1, le=20)] = 5


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One argument of an HTTP tool."""

    type: Literal["string", "integer", "number", "boolean"]
    description: Text = ""
    required: bool = True
    enum: tuple[str, ...] = ()
    max_length: Annotated[int, Meta(ge=1, le=20_000)] = 1_000

    def schema(self) -> dict[str, Any]:
        """Its JSON Schema."""
        schema: dict[str, Any] = {"type": self.type}
        if self.description:
            schema["description"] = self.description
        if self.type == "string":
            schema |= {"enum": list(self.enum)} if self.enum else {"maxLength": self.max_length}
        return schema


class HttpTool(_Tool, frozen=True, kw_only=True, tag="http"):
    """One request to one server, with a leased bearer credential.

    `url` may hold `{name}` of a parameter in its path; other arguments go into the query (GET) or a JSON body (others).
    """

    url: str
    connection: Label
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    scopes: tuple[str, ...] = ()
    data_source: Label | None = None
    parameters: dict[ParameterName, Parameter] = {}
    max_bytes: Annotated[int, Meta(ge=1, le=1_048_576)] = 262_144

    @property
    def host(self) -> str:
        """`host` or `host:port`, as the URL has it, in lower case: what a lease must name."""
        return urlsplit(self.url).netloc.lower()


ToolDefinition = FunctionTool | SqlTool | DocumentsTool | HttpTool

_ENFORCED: Final[dict[type, tuple[str, ...]]] = {
    SqlTool: ("mask_fields", "max_rows", "row_filter"),
    DocumentsTool: ("max_rows",),
}


def enforced_by(definition: ToolDefinition) -> tuple[str, ...]:
    """The types of obligations that a tool of this kind can honour; with any other it refuses the call."""
    return _ENFORCED.get(type(definition), ())


def check(definition: ToolDefinition, *, tenant: str) -> None:
    """What the shape does not say; raises ValueError with the reason and the way out."""
    match definition:
        case FunctionTool(entry=entry) if entry not in FUNCTIONS:
            raise ValueError(
                f"entry {entry!r} is no function of the tool host (there are: {', '.join(sorted(FUNCTIONS))})"
            )
        case SqlTool(source=source):
            _require_below(source, f"sources/{tenant}", "source")
        case DocumentsTool(folder=folder):
            _require_below(folder, f"documents/{tenant}", "folder")
        case HttpTool():
            _check_url(definition)
        case _:
            pass


def _require_below(path: str, folder: str, field: str) -> None:
    """A tenant's tool reads that tenant's own folder: a slip in a file must not open another tenant's data."""
    parts = PurePosixPath(path).parts
    if "\\" in path or "\0" in path or ".." in parts or PurePosixPath(path).is_absolute():
        raise ValueError(f"{field} {path!r} must be a relative path inside the home, without `..`")
    if parts[: len(folder.split("/"))] != tuple(folder.split("/")):
        raise ValueError(f"{field} {path!r} must lie below {folder}/")


def _check_url(definition: HttpTool) -> None:
    url = urlsplit(definition.url)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError(f"url {definition.url!r} must begin with https://HOST, or http:// and a loopback address")
    if url.username is not None or url.password is not None or "@" in url.netloc:
        raise ValueError("url must hold no credential: that is what the connection is for")
    if (
        url.query
        or url.fragment
        or "{" in url.netloc
        or any(ord(char) <= 32 or ord(char) > 126 for char in definition.url)
    ):
        raise ValueError("url must be host and path only, in ASCII; arguments become the query or the body")
    _ = url.port  # raises ValueError for one that is no number below 65536
    if url.scheme == "http" and not _is_loopback(url.hostname):
        raise ValueError("http:// would send the credential in the clear: use https:// (http:// is for loopback only)")
    if unknown := sorted(set(PLACEHOLDER.findall(url.path)) - set(definition.parameters)):
        raise ValueError(f"url names {', '.join(unknown)}, which is not among the parameters")
    for name in PLACEHOLDER.findall(url.path):
        if not definition.parameters[name].required:
            raise ValueError(f"parameter {name} stands in the path and must be required")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
