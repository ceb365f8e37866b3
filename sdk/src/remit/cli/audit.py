"""`remit audit`: every copy and every proof of a home."""

from __future__ import annotations

from typing import Any

from cyclopts import App
from rich.text import Text

from remit.cli.faults import draw_faults
from remit.cli.installation import as_installer
from remit.cli.offline import offline as run_offline
from remit.cli.output import emit, inert, out
from remit_contracts.errors import Tampered, Unavailable
from remit_contracts.identity import PLATFORM_TENANT

app = App(name="audit", help="The record itself.")


@app.command
def check(*, offline: bool = False) -> int:
    """Compare stores, streams and ledgers, check every proof and permit; exits 6 and names each record that is wrong.

    Exits 5 when nothing is wrong and something could not be checked, as permits without the vault's master key.

    Parameters
    ----------
    offline
        Read a stopped home's files instead of asking.
    """
    if offline:
        report = run_offline("audit-check")
    else:
        report = as_installer(lambda office: office.ask(PLATFORM_TENANT, "audit", "check", timeout_seconds=120))
    emit(report, lambda: _draw(report))
    if report["ok"]:
        return 0
    wrong = any(tenant["faults"] for tenant in report["tenants"])
    return (Tampered if wrong else Unavailable)("").exit_code


def _compared(checked: dict[str, Any]) -> str:
    """In words, which copies were compared with one another and which were not."""
    parts = {
        "ledger": checked["ledger"],
        f"stores of {', '.join(checked['stores'])}": checked["stores"],
        f"heads of {', '.join(checked['heads'])}": checked["heads"],
        "stream": checked["stream"],
        "permits": checked["permits"],
    }
    seen = "; ".join(part for part, was in parts.items() if was) or "nothing"
    absent = {"ledger": checked["ledger"], "stores": [*checked["stores"], *checked["heads"]]}
    absent |= {"stream": checked["stream"], "permits": checked["permits"]}
    unseen = ", ".join(part for part, was in absent.items() if not was)
    return f"checked: {seen}" + (f"; not checked: {unseen}" if unseen else "")


def _draw(report: dict[str, Any]) -> None:
    for tenant in report["tenants"]:
        faults = tenant["faults"]
        unchecked = tenant.get("unchecked", [])
        style, word = ("yellow", "not wholly checked") if unchecked else ("green", "intact")
        if faults:
            style, word = "bold red", "TAMPERED"
        out.print(Text(f"{tenant['tenant']}: {word}, {tenant['entries']} entries", style=style))
        out.print(Text(f"  {_compared(tenant['checked'])}", style="dim"))
        draw_faults(faults)
        for what in unchecked:
            out.print(Text("  not checked: ", style="yellow"), inert(what), sep="")
    for note in report.get("notes", []):
        out.print(Text(str(note), style="dim"))
