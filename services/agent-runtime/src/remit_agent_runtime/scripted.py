"""The scripted model: deterministic, and no language model. It follows rules, so that everything around a model can
run and be tested.

What it does with a prompt, first match:
1. the prompt is itself a script: a JSON object `{"script": [{"call": {"tool", "args"}}, ..., {"answer": "..."}]}`;
2. a rule of the agent's `script` whose `when` is found in the prompt;
3. the prompt holds SQL, and the agent has a tool that takes SQL: that tool is called with it;
4. else one tool, the one that the prompt names or the agent's first, with arguments made from the prompt; a tool that
   takes SQL gets one of the tables that its description ends with (`Tables: flights(carrier, ...), ...`), and without
   any the answer is that the rules do not cover the question.

Then it answers with what the tools gave. A text in a script may name `{prompt}`, `{result}`, `{results}` and the
groups of `when`; nothing else in braces is touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from remit_agent_runtime.rendering import readable

NOTICE: Final = "(This is Remit's scripted model: it follows rules and is no language model.)"
MATCHED_CHARACTERS: Final = 500
"""Rules look at the beginning of a prompt only: a pattern that is quadratic in it would stall everybody's runs."""

_SQL = re.compile(
    r"(?:```(?:sql)?\s*|`)?\b((?:select|with|insert|update|delete|drop|create|alter|attach|pragma|explain)\s[^`]+)",
    re.IGNORECASE,
)
_SQL_SHAPE = re.compile(
    r"\bselect\b.+|\bwith\b.+\bselect\b|\binsert\s+into\b|\bupdate\b.+\bset\b|\bdelete\s+from\b|\b(?:drop|create|alter)\s+(?:table|view|index)\b"
    r"|\battach\b|\bpragma\b|\bexplain\b",
    re.IGNORECASE | re.DOTALL,
)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORD = re.compile(r"[a-z][a-z0-9_]+")
_TABLE = re.compile(r"(?:^|,) *([A-Za-z_]\w*)\(([^()]*)\)")
_TABLES = "Tables:"


class OfferedTool(NamedTuple):
    """A tool as a model is told of it; `parameters` is a JSON Schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class Asked(NamedTuple):
    """The model asks for a tool call."""

    tool: str
    arguments: dict[str, Any]


class Answered(NamedTuple):
    """The model answers."""

    text: str


class Returned(NamedTuple):
    """What an earlier call of this conversation gave."""

    tool: str
    content: Any


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a script: a call, or (with `tool` empty) the answer."""

    tool: str
    arguments: Mapping[str, Any]
    answer: str = ""


class ScriptedModel:
    """A pure function of the agent's script, its tools, the prompt and what the calls so far gave."""

    def __init__(self, script: Sequence[Mapping[str, Any]], tools: Sequence[OfferedTool]) -> None:
        self._script = script
        self._tools = {tool.name: tool for tool in tools}

    def respond(self, prompt: str, returned: Sequence[Returned]) -> Asked | Answered:
        """The next call, or the answer when all calls have been made."""
        steps, groups = self._steps(prompt)
        calls = [step for step in steps if step.tool]
        if len(returned) < len(calls):
            step = calls[len(returned)]
            return Asked(step.tool, _filled(step.arguments, _names(prompt, returned, groups)))
        answer = next((step.answer for step in steps if not step.tool and step.answer), "")
        if answer:
            return Answered(f"{_text(answer, _names(prompt, returned, groups))}\n\n{NOTICE}")
        return Answered(_plain_answer(returned))

    def _steps(self, prompt: str) -> tuple[Sequence[Step], Mapping[str, str]]:
        if own := _script_in(prompt):
            return own, {}
        for rule in self._script:
            if found := re.search(str(rule.get("when", "")), prompt[:MATCHED_CHARACTERS], re.IGNORECASE):
                groups = {name: value or "" for name, value in found.groupdict().items()}
                groups |= {str(number): value or "" for number, value in enumerate(found.groups(), 1)}
                calls = [Step(call["tool"], call.get("args") or {}) for call in rule.get("call") or []]
                return [*calls, Step("", {}, str(rule.get("answer", "")))], groups
        return self._guess(prompt), {}

    def _guess(self, prompt: str) -> Sequence[Step]:
        sql = _sql_in(prompt)
        takes_sql = [tool for tool in self._tools.values() if _sql_argument(tool)]
        if sql and takes_sql:
            return [Step(takes_sql[0].name, {_sql_argument(takes_sql[0]): sql})]
        words = set(_WORD.findall(prompt.lower().replace("-", "_")))
        named = [tool for tool in self._tools.values() if tool.name.replace("-", "_") in words]
        tool = next(iter([*named, *self._tools.values()]), None)
        if tool is None:
            return []
        if argument := _sql_argument(tool):
            select = _select_for(prompt, tool.description)
            return [Step(tool.name, {argument: select}) if select else Step("", {}, _not_covered(tool))]
        return [Step(tool.name, _arguments(tool, prompt))]


def _script_in(prompt: str) -> list[Step]:
    if not prompt.lstrip().startswith("{"):
        return []
    try:
        said = orjson.loads(prompt)
        return [
            Step(str(step["call"]["tool"]), dict(step["call"].get("args") or {}))
            if "call" in step
            else Step("", {}, str(step["answer"]))
            for step in said["script"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _sql_in(prompt: str) -> str:
    found = _SQL.search(prompt)
    if not found or not _SQL_SHAPE.match(found.group(1)):
        return ""
    sql = found.group(1)
    # A sentence such as "select your words with care" has no FROM, no literal and no digit.
    if sql.lower().startswith("select") and not re.search(
        r"\bfrom\s+\S|^select\s+[\d'\"(*]|^select\s+\w+\(", sql, re.IGNORECASE
    ):
        return ""
    return sql.strip().rstrip(";").strip()


def _sql_argument(tool: OfferedTool) -> str:
    properties = tool.parameters.get("properties", {})
    for name in ("sql", "query", "statement"):
        if name in properties and ("sql" in tool.name.lower() or "sql" in tool.description.lower() or name == "sql"):
            return name
    return ""


def _arguments(tool: OfferedTool, prompt: str) -> dict[str, Any]:
    """Every required argument, made from the prompt."""
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    required: Sequence[str] = tool.parameters.get("required") or list(properties)[:1]
    numbers = iter(_NUMBER.findall(prompt))
    return {name: _value_for(properties.get(name, {}), prompt, numbers) for name in required}


def _value_for(schema: Mapping[str, Any], prompt: str, numbers: Any) -> Any:
    if schema.get("enum"):
        mentioned = [value for value in schema["enum"] if str(value).lower() in prompt.lower()]
        return (mentioned or schema["enum"])[0]
    kind = schema.get("type", "string")
    if kind == "integer":
        return int(float(next(numbers, "1")))
    if kind == "number":
        return float(next(numbers, "1"))
    if kind == "boolean":
        return True
    if kind == "array":
        return []
    if kind == "object":
        return {}
    return prompt[: int(schema.get("maxLength", 4_000))]


def _not_covered(tool: OfferedTool) -> str:
    return f"My rules do not cover this question, and {tool.name} tells of no table that I could look into."


def _select_for(prompt: str, description: str) -> str:
    """The first rows of the table that the prompt's words fit best; empty when the description names no table."""
    _, told, listed = description.rpartition(_TABLES)  # what stands before may look like a table: "(SQLite dialect)"
    tables = [(name, columns) for name, columns in _TABLE.findall(listed) if columns.strip()] if told else []
    if not tables:
        return ""
    words = {word.rstrip("s") for word in _WORD.findall(prompt.lower())}

    def fit(table: tuple[str, str]) -> int:
        name, columns = table
        in_name = {word.rstrip("s") for word in name.lower().split("_")} & words
        in_columns = {word.rstrip("s") for word in re.split(r"[\s,_]+", columns.lower())} & words
        return 10 * len(in_name) + len(in_columns)

    best = max(tables, key=fit)  # of equals, the first
    return f'SELECT * FROM "{best[0]}" LIMIT 5'  # noqa: S608 - a word of our own pattern, and policy decides what SQL may do


def _names(prompt: str, returned: Sequence[Returned], groups: Mapping[str, str]) -> dict[str, str]:
    results = [readable(item.content) for item in returned]
    return {**groups, "prompt": prompt, "result": results[-1] if results else "", "results": "\n\n".join(results)}


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _text(value, names)
    if isinstance(value, Mapping):
        return {key: _filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, names) for item in value]
    return value


def _text(template: str, names: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: names.get(found.group(1), found.group(0)), template)


def _plain_answer(returned: Sequence[Returned]) -> str:
    if not returned:
        return f"I have no tool for this, and without one I know nothing.\n\n{NOTICE}"
    parts = [f"{item.tool} gave:\n{readable(item.content)}" for item in returned]
    return "\n\n".join([*parts, NOTICE])
