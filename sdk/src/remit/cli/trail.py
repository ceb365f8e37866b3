"""`remit trail`: what happened to one user, readable, provable, replayable. One's own needs no role."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from cyclopts import App
from rich.text import Text

from remit.cli.context import current
from remit.cli.faults import draw_faults
from remit.cli.installation import As, Token, as_user, credential
from remit.cli.numbers import After, Count, Index, Speed
from remit.cli.offline import offline as run_offline
from remit.cli.output import emit, json_line, out, say, table
from remit.client import PAGE, Client
from remit_contracts.errors import Tampered
from remit_contracts.identity import Handle

app = App(name="trail", help="A user's trail: show, verify, prove, export, replay.")


@app.command
def show(
    user: str,
    /,
    *,
    after: After = None,
    limit: Count = None,
    offline: bool = False,
    as_: As = None,
    token: Token = None,
) -> None:
    """What was recorded of TENANT/HANDLE, oldest first.

    Parameters
    ----------
    user
        TENANT/HANDLE.
    after
        Start behind this index.
    limit
        Stop after so many entries.
    offline
        Read a stopped home's files instead of asking.
    """
    entries = _entries(user, after=after, limit=limit, offline=offline, as_=as_, token=token)
    emit({"user": user, "entries": entries}, lambda: _draw(entries))


@app.command
def verify(user: str, /, *, offline: bool = False, as_: As = None, token: Token = None) -> int:
    """Recompute every hash of a trail up to its signed checkpoint; exits 6 when anything disagrees."""
    if offline:
        report = run_offline("trail-verify", who=user)
    else:
        who, token = credential(as_, token, named=user)
        asked = _of(user, who)
        report = as_user(who, token, lambda client: client.command("audit", "verify-trail", asked, timeout_seconds=60))

    def draw() -> None:
        style, word = ("green", "verified") if report["ok"] else ("bold red", "TAMPERED")
        out.print(Text(f"{word}: {report['entries']} entries of {user}", style=style))
        draw_faults(report.get("faults", []))
        if report.get("checkpoint"):
            say(str(report["checkpoint"]))

    emit(report, draw)
    return 0 if report["ok"] else Tampered("").exit_code


@app.command
def prove(user: str, index: Index, /, *, to: Path | None = None, as_: As = None, token: Token = None) -> None:
    """A bundle that proves one entry without trusting anybody: check it with verify_proof.py.

    Parameters
    ----------
    index
        The entry's index in the ledger, as `trail show` gives it.
    to
        File to write; standard output without it.
    """
    who, token = credential(as_, token, named=user)
    asked = {"index": index, **_of(user, who)}
    bundle = as_user(who, token, lambda client: client.command("audit", "prove-entry", asked))
    text = orjson.dumps(bundle, option=orjson.OPT_INDENT_2)
    if to is None:
        sys.stdout.write(text.decode() + "\n")
    else:
        to.write_bytes(text)
        say(f"wrote {to}; check it: python -m remit_audit.verify_proof {to} {current.home}/public/ledger.pub")


@app.command
def export(user: str, /, *, to: Path | None = None, offline: bool = False, as_: As = None, token: Token = None) -> None:
    """Write a trail as JSON Lines.

    Parameters
    ----------
    to
        File to write; standard output without it.
    """
    entries = _entries(user, after=None, limit=None, offline=offline, as_=as_, token=token)
    if to is None:
        for entry in entries:
            sys.stdout.write(json_line(entry))
        return
    to.write_bytes(b"".join(orjson.dumps(entry) + b"\n" for entry in entries))
    emit({"written": len(entries), "file": str(to)}, lambda: say(f"wrote {len(entries)} entries to {to}"))


@app.command
def replay(user: str, /, *, after: After = None, speed: Speed = 0.0, as_: As = None, token: Token = None) -> None:
    """Play a trail back in order, one JSON line an entry.

    Parameters
    ----------
    after
        Start behind this index: where an earlier replay stopped.
    speed
        1 is real time, 10 ten times as fast, 0 as fast as possible.
    """

    who, token = credential(as_, token, named=user)

    async def play(client: Client) -> int:
        count, before = 0, None
        async for entry in client.entries(after=after, of=_of(user, who).get("of")):
            at = datetime.fromisoformat(entry["recorded_at"])
            if speed > 0 and before is not None:
                await asyncio.sleep(max(0.0, (at - before).total_seconds() / speed))
            before = at
            count += 1
            sys.stdout.write(json_line(entry))
            sys.stdout.flush()
        return count

    say(f"{as_user(who, token, play)} entries replayed")


def _entries(
    user: str, *, after: int | None, limit: int | None, offline: bool, as_: str | None, token: str | None
) -> list[dict[str, Any]]:
    if offline:
        return _offline_entries(user, after, limit)

    who, token = credential(as_, token, named=user)

    async def read(client: Client) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async for entry in client.entries(after=after, of=_of(user, who).get("of")):
            found.append(entry)
            if limit is not None and len(found) >= limit:
                break
        return found

    return as_user(who, token, read)


def _offline_entries(user: str, after: int | None, limit: int | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while limit is None or len(found) < limit:
        asked = PAGE if limit is None else min(PAGE, limit - len(found))
        page = run_offline("trail-show", who=user, after=after, limit=asked)
        found += page["entries"]
        after = page["next"]
        if after is None:
            break
    return found


def _of(user: str, who: str | None) -> dict[str, str]:
    """Nothing for one's own trail; else whose it is, with the tenant: the service must be able to refuse it."""
    return {} if who == user else {"of": str(Handle.parse(user))}


def _draw(entries: list[dict[str, Any]]) -> None:
    table(
        ["index", "recorded", "service", "event", "run", "what"],
        [
            (
                entry["index"],
                str(entry["recorded_at"])[:23],
                entry["service"],
                entry["event"],
                str(entry.get("run_id") or "")[:8],
                _summary(entry.get("data")),
            )
            for entry in entries
        ],
    )


def _summary(data: Any) -> str:
    if not isinstance(data, dict):
        return str(data or "")
    told = [f"{key}={value}" for key, value in data.items() if isinstance(value, (str, int, float)) and key != "permit"]
    return " ".join(told)[:120]
