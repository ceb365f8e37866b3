"""`remit run` and `remit runs`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from cyclopts import App

from remit.cli.context import current
from remit.cli.installation import As, Token, as_user
from remit.cli.numbers import Rows, Seconds
from remit.cli.output import emit, inert, json_line, out, pairs, refuse, say, styled, table
from remit.client import Client, not_ended
from remit_contracts.errors import Absent, refusal_from
from remit_contracts.runs import MAX_LISTED_RUNS

app = App(name="runs", help="Runs: list, show, cancel, replay.")


def run(agent: str, prompt: str, /, *, as_: As = None, token: Token = None, timeout: Seconds = 300.0) -> int:
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

    async def watch(client: Client) -> dict[str, Any]:
        run_id: str | None = None
        try:
            async with asyncio.timeout(timeout):
                async for message in client.stream(agent, prompt):
                    run_id = message.get("run_id", run_id)
                    if not current.wants_json:
                        say(_progress(message))
        except TimeoutError:
            raise not_ended(run_id, timeout) from None
        return await client.show(str(run_id))

    view = as_user(as_, token, watch)
    emit(view, lambda: _draw(view))
    return _exit_code(view)


@app.command(name="list")
def list_(*, limit: Rows = 100, as_: As = None, token: Token = None) -> None:
    """One's own runs, newest first.

    Parameters
    ----------
    limit
        So many of the newest.
    """
    listed = as_user(as_, token, lambda client: client.command("agent-runtime", "list-runs", {"limit": limit}))
    rows = listed["runs"]
    emit(
        rows,
        lambda: table(
            ["run", "status", "agent", "accepted"],
            [(row["run_id"], styled(row["status"]), row.get("agent"), row.get("accepted_at")) for row in rows],
        ),
    )
    if listed.get("more"):
        say(f"there are older runs: --limit shows up to {MAX_LISTED_RUNS}")


@app.command
def show(run_id: str, /, *, as_: As = None, token: Token = None) -> None:
    """One run, step by step."""
    view = as_user(as_, token, lambda client: client.show(run_id))
    emit(view, lambda: _draw(view))


@app.command
def cancel(run_id: str, /, *, as_: As = None, token: Token = None) -> None:
    """End a run that has not ended."""
    answer = as_user(as_, token, lambda client: client.cancel(run_id))
    emit(answer, lambda: pairs(answer))


@app.command
def replay(run_id: str, /, *, as_: As = None, token: Token = None) -> None:
    """Play a run's recorded events back in order, one JSON line an event; nothing is called again."""

    async def play(client: Client) -> int:
        count = 0
        async for entry in client.entries():
            if entry.get("run_id") == run_id:
                count += 1
                sys.stdout.write(json_line(entry))
        return count

    if not (count := as_user(as_, token, play)):
        raise Absent(f"no event of a run {run_id} is in your trail")
    say(f"{count} events replayed")


def _exit_code(view: dict[str, Any]) -> int:
    if view["status"] == "completed":
        return 0
    refusal = refusal_from({"error": view.get("error") or {"code": "failed", "reason": f"the run {view['status']}"}})
    return refusal.exit_code if current.wants_json else refuse(refusal)


def _progress(message: dict[str, Any]) -> str:
    shown = {key: value for key, value in message.items() if key not in ("run_id", "seq", "type", "at") and value}
    return f"{message.get('type', '?'):<7} " + " ".join(f"{key}={value}" for key, value in shown.items())[:200]


def _draw(view: dict[str, Any]) -> None:
    steps = view.get("steps") or []
    if steps:
        table(
            ["#", "step", "what", "outcome"],
            [
                (number, step.get("type"), step.get("tool") or step.get("model"), step.get("outcome"))
                for number, step in enumerate(steps, 1)
            ],
        )
    if view.get("withheld"):
        say(f"withheld: {view['withheld']}", style="yellow")
    if view.get("answer"):
        out.print(inert(view["answer"]))
    say(f"run {view['run_id']} {view['status']}")
