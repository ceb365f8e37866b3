"""Declarative agents: `agents/{tenant}/{name}.yaml`, read strictly.

    name: analyst
    description: Answers questions about flights.
    instructions: You answer from the tenant's SQL source.
    model: default            # or scripted, or PROVIDER:NAME
    tools: [sql]
    limits: {model_calls: 20, tool_calls: 20, seconds: 300}
    on_denied: stop           # or tell: the model hears of the refusal and goes on
    script:                   # what the scripted model does, tried in this order
      - when: "busiest"
        call: {tool: sql, args: {query: "SELECT ..."}}
        answer: "The busiest: {result}"

A definition that is not this is refused with `agent.invalid`, naming the file, the field and the way out.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import orjson
import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from remit_contracts.errors import Absent, Refusal
from remit_contracts.faults import in_words
from remit_contracts.identity import Label, is_label

MAX_FILE_BYTES: Final = 256 * 1024
MODEL_NAME: Final = re.compile(r"default|scripted|[a-z][a-z0-9-]*:[\w./:@-]{1,120}", re.ASCII)


class AgentInvalid(Refusal):
    """An agent's definition cannot be used."""

    code = "agent.invalid"


def _model(value: str) -> str:
    if not MODEL_NAME.fullmatch(value):
        raise ValueError("must be `default`, `scripted` or PROVIDER:NAME, such as openai:gpt-5")
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as fault:
        raise ValueError(f"is no regular expression: {fault}") from None
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ScriptedCall(_Strict):
    """A tool call of the scripted model. Texts in `args` may name `{prompt}`, groups of `when`, and `{result}`."""

    tool: Label
    args: dict[str, Any] = {}


class ScriptRule(_Strict):
    """When the prompt matches (a search, without regard to case), make these calls in order, then give this answer."""

    when: Annotated[str, AfterValidator(_pattern)] = ""
    call: Annotated[list[ScriptedCall], BeforeValidator(_listed)] = []
    answer: str = ""


class Limits(_Strict):
    """Of one run; `seconds` counts from the moment a worker takes it up."""

    model_calls: Annotated[int, Field(ge=1, le=1_000)] = 20
    tool_calls: Annotated[int, Field(ge=0, le=10_000)] = 20
    seconds: Annotated[float, Field(gt=0, le=86_400, strict=False)] = 300.0


class AgentDefinition(_Strict):
    """One agent, as its file says."""

    name: Label
    description: Annotated[str, Field(max_length=500)] = ""
    instructions: Annotated[str, Field(max_length=64_000)] = ""
    model: Annotated[str, AfterValidator(_model)] = "default"
    tools: Annotated[list[Label], Field(max_length=64)] = []
    limits: Limits = Limits()
    on_denied: Literal["stop", "tell"] = "stop"
    script: Annotated[list[ScriptRule], Field(max_length=200)] = []

    def frozen(self) -> dict[str, Any]:
        """Plain JSON, complete: what a run keeps of it."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """SHA-256 in hex over the canonical JSON of the definition."""
        return sha256(orjson.dumps(self.frozen(), option=orjson.OPT_SORT_KEYS)).hexdigest()


class AgentFolder:
    """The definitions under `root`, one folder a tenant. Files are read when asked for, and again when they change."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[Path, tuple[tuple[int, int], AgentDefinition]] = {}

    def names(self, tenant: str) -> list[str]:
        """The agents of a tenant, sorted; files whose names are no identifiers are not agents."""
        return sorted(path.stem for path in (self._root / tenant).glob("*.yaml") if is_label(path.stem))

    def get(self, tenant: str, name: str, *, tools: Collection[str]) -> AgentDefinition:
        """The definition, whose tools are all among `tools`; raises Absent or AgentInvalid."""
        path = self._root / tenant / f"{name}.yaml"
        try:
            stat = path.stat()
        except OSError:
            self._read.pop(path, None)
            raise Absent(
                f"there is no agent {name!r} for you: `remit agents list` shows those that you may use"
            ) from None
        version = (stat.st_mtime_ns, stat.st_size)
        known = self._read.get(path)
        if known is None or known[0] != version:
            known = self._read[path] = (version, parse(path.read_bytes(), name=name, file=path.name))
        _check_tools(known[1], tools, path.name)
        return known[1]


def parse(content: bytes, *, name: str, file: str) -> AgentDefinition:
    """Decode one file; raises AgentInvalid."""
    if len(content) > MAX_FILE_BYTES:
        raise AgentInvalid(f"{file} has {len(content)} bytes and may have {MAX_FILE_BYTES}")
    try:
        said = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as fault:
        raise AgentInvalid(f"{file} is no YAML: {' '.join(str(fault).split())[:200]}") from None
    if not isinstance(said, dict):
        raise AgentInvalid(f"{file} holds no mapping: it begins with `name: {name}`")
    try:
        definition = AgentDefinition.model_validate(said)
    except ValidationError as invalid:
        known = ", ".join(AgentDefinition.model_fields)
        raise AgentInvalid(f"{file}: {in_words(invalid, whole='the file')} (an agent has: {known})") from None
    if definition.name != name:
        raise AgentInvalid(f"{file}: name is {definition.name!r} and must be the file's name, {name!r}")
    return definition


def _check_tools(definition: AgentDefinition, tools: Collection[str], file: str) -> None:
    used = {*definition.tools, *(call.tool for rule in definition.script for call in rule.call)}
    if unknown := sorted(used - set(tools)):
        there = ", ".join(sorted(tools)) or "none"
        raise AgentInvalid(f"{file}: tools: {', '.join(unknown)} is not among the tenant's tools ({there})")
    if unlisted := sorted(used - set(definition.tools)):
        raise AgentInvalid(f"{file}: script: calls {', '.join(unlisted)}, which is not listed under tools")
