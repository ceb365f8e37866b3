"""A run as its user sees it."""

from __future__ import annotations

from typing import Any

from remit_agent_runtime.domain import Run
from remit_agent_runtime.facts import ModelCall, ToolCall
from remit_agent_runtime.live import text_of
from remit_contracts.runs import RunError, RunStep, RunUsage, RunView


def view_of(run: Run) -> RunView:
    """Everything but what is secret: permits stay in the record."""
    steps = sorted([*map(_model_step, run.model_calls), *map(_tool_step, run.tool_calls)], key=lambda step: step.at)
    usage = run.usage
    return RunView(
        run_id=run.run_id,
        agent=str(run.agent.get("name", "")),
        status=run.status,
        accepted_at=run.created_on,
        ended_at=run.ended_at,
        prompt=run.prompt,
        answer=run.answer if run.status == "completed" else None,
        error=_error(run.error),
        usage=RunUsage(
            model_calls=usage.model_calls,
            tool_calls=usage.tool_calls,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cpu_seconds=usage.cpu_seconds,
            wall_seconds=usage.wall_seconds,
        ),
        steps=tuple(steps),
        withheld=_withheld(run),
    )


def _model_step(call: ModelCall) -> RunStep:
    return RunStep(
        type="model",
        ordinal=call.ordinal,
        outcome="answered",
        at=call.at,
        model=call.model,
        text=text_of(call.response) or None,
    )


def _tool_step(call: ToolCall) -> RunStep:
    return RunStep(
        type="tool",
        ordinal=call.ordinal,
        outcome=call.outcome,
        at=call.at,
        tool=call.tool,
        arguments=call.arguments,
        result=call.result,
        error=_error(call.error),
        decision_id=call.decision_id or None,
        withheld=call.withheld or None,
    )


def _error(error: dict[str, Any] | None) -> RunError | None:
    if error is None:
        return None
    return RunError(
        code=str(error.get("code", "internal")),
        reason=str(error.get("reason", "")),
        decision_id=error.get("decision_id"),
    )


def _withheld(run: Run) -> dict[str, dict[str, Any]]:
    """By tool: lists are joined without repetition, counts are added up."""
    together: dict[str, dict[str, Any]] = {}
    for call in run.tool_calls:
        for name, value in call.withheld.items():
            kept = together.setdefault(call.tool, {})
            if isinstance(value, list):
                kept[name] = list(dict.fromkeys([*kept.get(name, []), *value]))
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                kept[name] = kept.get(name, 0) + value
            else:
                kept[name] = value
    return together
