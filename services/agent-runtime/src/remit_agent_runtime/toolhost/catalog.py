"""A tenant's tools, `tools/{tenant}.yaml`, read strictly, and how each describes itself to a model and to policy.

    tools:
      - {id: sql, kind: sql, source: sources/acme/flights.sqlite, description: "..."}
      - {id: docs, kind: documents, folder: documents/acme}
      - {id: days-between, kind: function, entry: days_between}
      - {id: weather-desk, kind: http, url: "https://desk.example/conditions/{airport}", connection: weather-desk,
         scopes: [conditions.read], parameters: {airport: {type: string}}}

A file that is not this is refused whole (`tool.invalid`): a half-read catalog would silently drop somebody's tool.
"""

from __future__ import annotations

import os
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import yaml

from remit_agent_runtime.toolhost.definitions import (
    DocumentsTool,
    FunctionTool,
    HttpTool,
    SqlTool,
    ToolDefinition,
    ToolInvalid,
    check,
    enforced_by,
)
from remit_agent_runtime.toolhost.functions import schema_of
from remit_agent_runtime.toolhost.sql_schema import read_schema
from remit_contracts.errors import Absent

MAX_FILE_BYTES: Final = 256 * 1024
MAX_TOOLS: Final = 200


class ToolDescriptor(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A tool as others see it. `parameters` is the JSON Schema of its arguments.

    `data_sources` are the resources that policy decides `data.read` on; `connection` names whose credential is leased,
    with `scopes`; `enforces` are the types of obligations that it can honour.
    """

    id: str
    kind: str
    description: str
    parameters: dict[str, Any]
    data_sources: tuple[str, ...] = ()
    connection: str | None = None
    scopes: tuple[str, ...] = ()
    enforces: tuple[str, ...] = ()
    definition: str = ""
    """SHA-256 in hex of how the tool is defined: its source, URL, method and bounds."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex over all fields: it changes when the tool does, or what a model or policy is told of it."""
        return _digest_of(self)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tools: list[ToolDefinition]


class Catalog:
    """The tools of the tenants of one home. Files are read when asked for, and again when they change."""

    def __init__(self, home: Path) -> None:
        self._home = home.absolute()
        self._files = f"{self._home}/tools/"  # a Path made at every call cost more than looking at the file
        self._read: dict[str, tuple[tuple[int, int], dict[str, ToolDefinition]]] = {}
        self._described: dict[tuple[str, str], tuple[Any, ToolDescriptor]] = {}

    @property
    def home(self) -> Path:
        """Sources and documents are named relative to it."""
        return self._home

    def definitions(self, tenant: str) -> dict[str, ToolDefinition]:
        """By id; empty for a tenant without a file. Raises ToolInvalid."""
        path = f"{self._files}{tenant}.yaml"
        try:
            status = os.stat(path)
        except FileNotFoundError:
            self._read.pop(tenant, None)
            return {}
        version = (status.st_mtime_ns, status.st_size)
        known = self._read.get(tenant)
        if known is None or known[0] != version:
            content = Path(path).read_bytes()
            known = self._read[tenant] = (version, parse(content, tenant=tenant, file=f"tools/{tenant}.yaml"))
        return known[1]

    def find(self, tenant: str, tool: str) -> ToolDefinition:
        """Raises Absent, or ToolInvalid."""
        definition = self.definitions(tenant).get(tool)
        if definition is None:
            raise Absent(f"there is no tool {tool!r} for you")
        return definition

    def descriptors(self, tenant: str) -> list[ToolDescriptor]:
        """In the file's order; raises ToolInvalid, also when a source is not there."""
        return [self._descriptor(tenant, definition) for definition in self.definitions(tenant).values()]

    def _descriptor(self, tenant: str, definition: ToolDefinition) -> ToolDescriptor:
        version: Any = (definition, self._source_version(definition))
        known = self._described.get((tenant, definition.id))
        if known is None or known[0] != version:
            known = self._described[tenant, definition.id] = (version, describe(definition, self._home))
        return known[1]

    def _source_version(self, definition: ToolDefinition) -> tuple[int, int] | None:
        if not isinstance(definition, SqlTool):
            return None
        try:
            status = (self._home / definition.source).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size


def parse(content: bytes, *, tenant: str, file: str) -> dict[str, ToolDefinition]:
    """Decode one file; raises ToolInvalid naming the file, the place and the way out."""
    if len(content) > MAX_FILE_BYTES:
        raise ToolInvalid(f"{file} has {len(content)} bytes and may have {MAX_FILE_BYTES}")
    try:
        said = yaml.safe_load(content)
        tools = msgspec.convert(said, _File).tools
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as fault:
        raise ToolInvalid(f"{file} is no YAML: {' '.join(str(fault).split())[:200]}") from None
    except msgspec.ValidationError as fault:
        raise ToolInvalid(f"{file}: {fault} (kinds: documents, function, http, sql)") from None
    if len(tools) > MAX_TOOLS:
        raise ToolInvalid(f"{file} has {len(tools)} tools and may have {MAX_TOOLS}")
    found: dict[str, ToolDefinition] = {}
    for definition in tools:
        try:
            check(definition, tenant=tenant)
        except ValueError as fault:
            raise ToolInvalid(f"{file}: tool {definition.id!r}: {fault}") from None
        if definition.id in found:
            raise ToolInvalid(f"{file}: tool {definition.id!r} is there twice")
        found[definition.id] = definition
    return found


def describe(definition: ToolDefinition, home: Path) -> ToolDescriptor:
    """What the tool tells of itself; raises ToolInvalid when its source cannot be read."""
    return msgspec.structs.replace(_describe(definition, home), definition=_digest_of(definition))


def _describe(definition: ToolDefinition, home: Path) -> ToolDescriptor:
    match definition:
        case FunctionTool():
            about, parameters = schema_of(definition.entry)
            return ToolDescriptor(
                id=definition.id,
                kind="function",
                description=definition.description or about,
                parameters=parameters,
            )
        case SqlTool():
            tables = read_schema(home / definition.source).told()
            about = definition.description or "Answers one SQL SELECT statement (SQLite dialect)."
            return ToolDescriptor(
                id=definition.id,
                kind="sql",
                description=f"{about} Tables: {tables}.",
                parameters=_object({"sql": {"type": "string", "description": "One SELECT statement."}}, ["sql"]),
                data_sources=(definition.data_source or definition.id,),
                enforces=enforced_by(definition),
            )
        case DocumentsTool():
            properties = {
                "query": {"type": "string", "minLength": 1, "maxLength": 1_000, "description": "Words to look for."},
                "limit": {"type": "integer", "minimum": 1, "maximum": 20, "description": "Passages wanted."},
            }
            return ToolDescriptor(
                id=definition.id,
                kind="documents",
                description=definition.description or "Finds passages in the tenant's documents.",
                parameters=_object(properties, ["query"]),
                data_sources=(definition.data_source or definition.id,),
                enforces=enforced_by(definition),
            )
        case HttpTool():
            properties = {name: parameter.schema() for name, parameter in definition.parameters.items()}
            required = [name for name, parameter in definition.parameters.items() if parameter.required]
            return ToolDescriptor(
                id=definition.id,
                kind="http",
                description=definition.description or f"Asks {definition.host}.",
                parameters=_object(properties, required),
                data_sources=(definition.data_source,) if definition.data_source else (),
                connection=definition.connection,
                scopes=tuple(definition.scopes),
            )


def _digest_of(value: Any) -> str:
    return sha256(orjson.dumps(msgspec.to_builtins(value), option=orjson.OPT_SORT_KEYS)).hexdigest()


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
