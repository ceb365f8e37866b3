"""Declarative agents on pydantic-ai: its loop, our gates. Imported at the first run, or just after readiness (it
costs 0.7 s of CPU).

The model that the loop sees asks through the model gate, and its only toolset calls through the tool gate, one call
at a time: replay goes by ordinals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic import TypeAdapter
from pydantic_ai import Agent, RunContext, UsageLimits
from pydantic_ai.exceptions import AgentRunError, ModelHTTPError, UserError
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    RetryPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, infer_model
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_ai.usage import RequestUsage
from pydantic_core import SchemaValidator, core_schema

from remit_agent_runtime.inhand import RunInHand
from remit_agent_runtime.model_gate import ModelAnswer, call_model
from remit_agent_runtime.models import SCRIPTED
from remit_agent_runtime.scripted import Answered, OfferedTool, Returned, ScriptedModel
from remit_agent_runtime.tool_gate import ToolGate, ToolReturn
from remit_agent_runtime.toolhost.catalog import ToolDescriptor
from remit_agent_runtime.toolhost.refusals import UNENFORCEABLE, UNKNOWN_OBLIGATION
from remit_agent_runtime.worker import AgentFailed

_ANY_ARGUMENTS = SchemaValidator(core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema()))
_RESPONSE: TypeAdapter[ModelResponse] = TypeAdapter(ModelResponse)
_NO_OBLIGATION = frozenset({UNKNOWN_OBLIGATION, UNENFORCEABLE})
_BYTES_PER_TOKEN = 4
"""The usual rule of thumb; the scripted model has no tokens of its own, and meters by it."""


async def run_agent(hand: RunInHand, *, gate: ToolGate, tools: Mapping[str, ToolDescriptor]) -> str:
    """The agent's answer. Raises what the gates raise, and AgentFailed for a denial that stops it or a model that
    fails it."""
    definition = hand.run.agent
    if gone := [tool for tool in definition.get("tools", []) if tool not in tools]:
        raise AgentFailed(
            {"code": "tool.changed", "reason": f"{', '.join(gone)} is no longer among the tenant's tools"}
        )
    offered = [tools[tool] for tool in definition.get("tools", [])]
    name = str(hand.run.bindings.get("model", SCRIPTED))
    try:
        inner: Model = Scripted(definition.get("script") or [], offered) if name == SCRIPTED else infer_model(name)
        agent: Agent[None, str] = Agent(
            GatedModel(inner, name, hand),
            instructions=definition.get("instructions") or None,
            toolsets=[GatedToolset(hand, gate, offered, stop=definition.get("on_denied", "stop") == "stop")],
            name=str(definition.get("name", "agent")),
        )
        # Budgets are the run's own, kept by the gates: the loop's default of 50 requests would be a second, silent one.
        async with agent:  # closes a provider's connections with the run
            result = await agent.run(hand.run.prompt, usage_limits=UsageLimits(request_limit=None))
    except UserError as fault:
        raise AgentFailed({"code": "agent.model_unavailable", "reason": f"{name}: {fault}"}) from None
    except AgentRunError as fault:  # a provider's message may quote the key that it was given
        status = f" (HTTP {fault.status_code})" if isinstance(fault, ModelHTTPError) else ""
        raise AgentFailed(
            {
                "code": "model.failed",
                "reason": f"the model {name} gave no usable answer: {type(fault).__name__}{status}",
            }
        ) from None
    return result.output


class GatedModel(WrapperModel):
    """What the loop takes for its model; all but the request is the wrapped model's."""

    def __init__(self, inner: Model, name: str, hand: RunInHand) -> None:
        super().__init__(inner)
        self._name = name
        self._hand = hand

    @property
    def model_name(self) -> str:
        """PROVIDER:NAME, or `scripted`."""
        return self._name

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Through the gate."""

        async def ask() -> ModelAnswer:
            response = await self.wrapped.request(messages, model_settings, model_request_parameters)
            return ModelAnswer(
                _lean(_to_json([response])[0]), response.usage.input_tokens, response.usage.output_tokens
            )

        asked = {
            "model": self._name,
            "messages": _to_json(messages),
            "tools": [
                {"name": tool.name, "description": tool.description, "parameters": tool.parameters_json_schema}
                for tool in model_request_parameters.function_tools
            ],
        }
        response = await call_model(self._hand, model=self._name, request=asked, ask=ask)
        return _RESPONSE.validate_python(response)


class Scripted(Model):
    """The scripted model as the loop sees it."""

    def __init__(self, script: Sequence[Mapping[str, Any]], tools: Sequence[ToolDescriptor]) -> None:
        super().__init__()
        self._model = ScriptedModel(script, [OfferedTool(tool.id, tool.description, tool.parameters) for tool in tools])

    @property
    def model_name(self) -> str:
        """`scripted`."""
        return SCRIPTED

    @property
    def system(self) -> str:
        """Nobody's."""
        return "remit"

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """The next step of the script."""
        parts = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
        prompt = "\n".join(str(part.content) for part in parts if isinstance(part, UserPromptPart))
        returned = [
            Returned(part.tool_name or "", part.content if isinstance(part, ToolReturnPart) else part.model_response())
            for part in parts
            if isinstance(part, (ToolReturnPart, RetryPromptPart))
        ]
        said = self._model.respond(prompt, returned)
        if isinstance(said, Answered):
            part: TextPart | ToolCallPart = TextPart(said.text)
            words = said.text
        else:
            part = ToolCallPart(said.tool, said.arguments, tool_call_id=f"call-{len(returned) + 1}")
            words = orjson.dumps(said.arguments).decode()
        usage = RequestUsage(
            input_tokens=len(orjson.dumps(_to_json(messages))) // _BYTES_PER_TOKEN,
            output_tokens=max(1, len(words) // _BYTES_PER_TOKEN),
        )
        return ModelResponse(parts=[part], usage=usage, model_name=SCRIPTED)


class GatedToolset(AbstractToolset[None]):
    """The agent's tools, each call through the tool gate."""

    def __init__(self, hand: RunInHand, gate: ToolGate, tools: Sequence[ToolDescriptor], *, stop: bool) -> None:
        self._hand = hand
        self._gate = gate
        self._tools = {tool.id: tool for tool in tools}
        self._stop = stop

    @property
    def id(self) -> str:
        """Of this toolset among an agent's."""
        return "remit"

    async def get_tools(self, ctx: RunContext[None]) -> dict[str, ToolsetTool[None]]:
        """As frozen at acceptance."""
        return {
            tool.id: ToolsetTool(
                toolset=self,
                tool_def=ToolDefinition(
                    name=tool.id,
                    description=tool.description,
                    parameters_json_schema=dict(tool.parameters),
                    sequential=True,
                ),
                max_retries=1,
                args_validator=_ANY_ARGUMENTS,  # the tool host checks arguments: what it refuses is recorded
            )
            for tool in self._tools.values()
        }

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[None], tool: ToolsetTool[None]
    ) -> Any:
        """The content, or for every other outcome what a model should know of it; raises AgentFailed when a denial
        stops the agent."""
        returned = await self._gate.call(self._hand, self._tools[name], tool_args)
        if self._stop and denied(returned):
            raise AgentFailed(returned.error or {"code": "policy.denied", "reason": "policy denied it"})
        if returned.outcome == "completed":
            return returned.content
        told = {"outcome": returned.outcome, "error": returned.error}
        return told if returned.content is None else {**told, "content": returned.content}


def denied(returned: ToolReturn) -> bool:
    """Whether policy refused it: before the call, or in the tool host by an obligation that it cannot keep."""
    return returned.outcome == "denied" or (returned.error or {}).get("code") in _NO_OBLIGATION


def _to_json(messages: Sequence[ModelMessage]) -> list[dict[str, Any]]:
    dumped: list[dict[str, Any]] = ModelMessagesTypeAdapter.dump_python(list(messages), mode="json")
    return dumped


def _lean(response: dict[str, Any]) -> dict[str, Any]:
    """Without fields that say nothing, which are most of a response's bytes; decoding gives them their defaults
    again."""
    said = {name: value for name, value in response.items() if value is not None}
    said["parts"] = [{name: value for name, value in part.items() if value is not None} for part in response["parts"]]
    said["usage"] = {name: value for name, value in response["usage"].items() if value}
    return said
