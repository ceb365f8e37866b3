"""The command line: global options, lazy commands, exit codes.

Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 absent or hidden, 5 unavailable, 6 tampered, 7 not signed in,
75 over quota or queue full, 130 interrupted.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from remit.cli import context
from remit.cli.outlets import outlive_readers
from remit_contracts.errors import Refusal, RemitError

COMMANDS = {
    "platform:up": "Start everything and serve until SIGINT or SIGTERM.",
    "platform:down": "Stop the platform of this home, and wait until it has stopped.",
    "platform:status": "Is each part well? Exits 5 when one is not, and 6 when a tenant is not served because its "
    "record was tampered with.",
    "platform:doctor": "Check this machine and this home; each finding with its way out. Exits 1 when something must "
    "be mended, and 6 when a tenant's record was tampered with.",
    "demo:demo": "Start a platform of its own with the demo tenants, do the main job, check everything, stop it.",
    "sessions:token": "Print a session token of the built-in issuer: a NATS auth_token and an HTTP bearer alike.",
    "sessions:whoami": "Show who a token speaks for, and the prefixes it may use.",
    "runs:run": "Run an agent and print its answer; exits 3 when policy stopped it, 1 when it failed.",
    "bench:bench": "Measure on a platform of its own, and show each number, its goal, and its ratio to the floor "
    "of the same run.",
    "runs:app": "Runs: list, show, cancel, replay.",
    "trail:app": "A user's trail: show, verify, prove, export, replay.",
    "roles:app": "Roles of a tenant.",
    "users:app": "Users of a tenant.",
    "tenants:app": "Tenants.",
    "sessions:app": "Sessions of users.",
    "agents:app": "Agents.",
    "connections:app": "Connections: add, list, show, test, revoke.",
    "leases:app": "Leases of credentials.",
    "audit:app": "The record itself.",
}
"""Where in this package each command is, and what the list of all says of it: nothing is imported to show that list."""


def build(arguments: Sequence[str]) -> App:
    """The whole command tree for one invocation; no command's module is imported yet."""
    app = App(
        name="remit",
        help="AI agents for many users of many tenants, each within its user's remit.",
        version=lambda: version("remit"),
        result_action="return_value",
    )
    for place, summary in COMMANDS.items():
        module, _, attribute = place.rpartition(":")
        name = module if attribute == "app" else attribute
        app.command(
            f"remit.cli.{place}", name=name, help=None if name in arguments else summary
        )  # its own docstring says more

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
    outlive_readers()
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """The exit code of one invocation."""
    from remit.cli.output import refuse, say

    try:
        return int(build(arguments).meta(arguments, exit_on_error=False, print_error=False) or 0)
    except Refusal as refusal:
        return refuse(refusal)
    except CycloptsError as usage:
        return refuse(Refusal(f"{_sentence(str(usage))} See `remit --help`.", code="request.usage"))
    except RemitError as fault:
        return refuse(Refusal(str(fault), code="failed"))
    except (OSError, sqlite3.Error) as fault:
        return refuse(Refusal(_where(fault), code="failed"))
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _sentence(words: str) -> str:
    """With one full stop; three are an ellipsis, of a list that goes on."""
    return words if words.endswith("...") else f"{words.rstrip(' .')}."


def _where(fault: Exception) -> str:
    """A fault of the disk or the network in one line, naming the file where there is one."""
    name = getattr(fault, "filename", None)
    said = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
    return f"{name}: {said}" if name else str(said)


if __name__ == "__main__":
    main()
