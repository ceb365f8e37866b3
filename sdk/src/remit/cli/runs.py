"""`remit run` and `remit runs`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from cyclopts import App, Parameter

from remit.cli.context import current
from remit.cli.installation import acting_as
from remit.cli.output import emit, inert, out, pairs, refuse, say, styled, table
from remit.client import Client
from remit_contracts.errors import refusal_from

As = Annotated[str | None, Parameter(name="--as", help="TENANT/HANDLE, at the machine.")]
Token = Annotated[str | None, Parameter(help="A session token (REMIT_TOKEN).")]

app = App(name="runs", help="Runs: list, show, cancel.")


def run(agent: str, prompt: str, /, *, as_: As = None, token: Token = None, timeout: float = 300.0) -> int:
    """Run an agent and print its answer; exits 3 when policy stopped it, 1 when it failed.

    Parameters
    ----------
    agent
        The agent's name.
    prompt
        What to do.
    timeout
        Seconds to wait for its end; the run itself goes on.
    """

    async def go() -> dict[str, Any]:
        async with acting_as(as_, token) as client, asyncio.timeout(timeout):
            return await _watched(client, agent, prompt)

    view = asyncio.run(go())
    emit(view, lambda: _draw(view))
    if view["status"] == "completed":
        return 0
    if view.get("error"):
        return (
            refusal_from({"error": view["error"]}).exit_code
            if current.wants_json
            else refuse(refusal_from({"error": view["error"]}))
        )
    return 1


@app.command(name="list")
def list_(*, as_: As = None, token: Token = None) -> None:
    """One's own runs, newest first."""

    async def go() -> list[dict[str, Any]]:
        async with acting_as(as_, token) as client:
            return await client.runs()

    rows = asyncio.run(go())
    emit(
        rows,
        lambda: table(
            ["run", "status", "agent", "accepted"],
            [(row["run_id"], styled(row["status"]), row.get("agent"), row.get("accepted_at")) for row in rows],
        ),
    )


@app.command
def show(run_id: str, /, *, as_: As = None, token: Token = None) -> None:
    """One run, step by step."""

    async def go() -> dict[str, Any]:
        async with acting_as(as_, token) as client:
            return await client.show(run_id)

    view = asyncio.run(go())
    emit(view, lambda: _draw(view))


@app.command
def cancel(run_id: str, /, *, as_: As = None, token: Token = None) -> None:
    """End a run that has not ended."""

    async def go() -> dict[str, Any]:
        async with acting_as(as_, token) as client:
            return await client.cancel(run_id)

    answer = asyncio.run(go())
    emit(answer, lambda: pairs(answer))


async def _watched(client: Client, agent: str, prompt: str) -> dict[str, Any]:
    run_id = ""
    async for message in client.stream(agent, prompt):
        run_id = message.get("run_id", run_id)
        if not current.wants_json:
            say(_line(message))
    return await client.show(run_id)


def _line(message: dict[str, Any]) -> str:
    shown = {key: value for key, value in message.items() if key not in ("run_id", "seq", "type", "at") and value}
    return f"{message.get('type', '?'):<7} " + " ".join(f"{key}={value}" for key, value in shown.items())[:200]


def _draw(view: dict[str, Any]) -> None:
    steps = view.get("steps") or []
    if steps:
        table(
            ["#", "step", "what", "outcome"],
            [
                (n, step.get("type"), step.get("tool") or step.get("model"), step.get("outcome"))
                for n, step in enumerate(steps, 1)
            ],
        )
    if view.get("withheld"):
        say(f"withheld: {view['withheld']}", style="yellow")
    if view.get("answer"):
        out.print(inert(view["answer"]))
    say(f"run {view['run_id']} {view['status']}")
