"""The command line: global options, lazy commands, exit codes.

Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 absent or hidden, 5 unavailable, 6 tampered, 7 not signed in,
75 over quota or queue full, 130 interrupted.
"""

from __future__ import annotations

import sqlite3
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from remit.cli import context
from remit_contracts.errors import Refusal, RemitError

NOUNS = ("runs", "trail", "roles", "users", "tenants", "agents", "connections", "leases", "audit")
VERBS = {
    "up": "platform",
    "down": "platform",
    "status": "platform",
    "doctor": "platform",
    "demo": "demo",
    "token": "sessions",
    "whoami": "sessions",
    "run": "runs",
    "bench": "bench",
}


def build() -> App:
    """The whole command tree; no command's module is imported yet."""
    app = App(
        name="remit",
        help="AI agents for many users of many tenants, each within its user's remit.",
        version=lambda: version("remit"),
        result_action="return_value",
    )
    for verb, module in VERBS.items():
        app.command(f"remit.cli.{module}:{verb}", name=verb)
    for noun in NOUNS:
        app.command(f"remit.cli.{noun}:app", name=noun)

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        home: Annotated[Path | None, Parameter(help="The home directory (REMIT_HOME, else .remit).")] = None,
        output: Annotated[context.Output | None, Parameter(help="table or json (REMIT_OUTPUT).")] = None,
    ) -> int:
        defaults = context.from_environment()
        context.current.home = home or defaults.home
        context.current.output = output or defaults.output
        result = app(tokens, exit_on_error=False, print_error=False)
        return result if isinstance(result, int) else 0

    return app


def main() -> None:
    """Run, and turn every refusal into words and an exit code."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """The exit code of one invocation."""
    from remit.cli.output import refuse, say

    try:
        return int(build().meta(arguments, exit_on_error=False, print_error=False) or 0)
    except Refusal as refusal:
        return refuse(refusal)
    except CycloptsError as usage:
        return refuse(Refusal(f"{usage}. See `remit --help`.", code="request.usage"))
    except RemitError as fault:
        return refuse(Refusal(str(fault), code="failed"))
    except (OSError, sqlite3.Error) as fault:
        return refuse(Refusal(_where(fault), code="failed"))
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _where(fault: Exception) -> str:
    """A fault of the disk or the network in one line, naming the file where there is one."""
    name = getattr(fault, "filename", None)
    said = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
    return f"{name}: {said}" if name else str(said)


if __name__ == "__main__":
    main()
