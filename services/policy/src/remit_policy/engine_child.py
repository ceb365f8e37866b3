"""The child process of an embedded engine: `python -I -B -m remit_policy.engine_child FD PARENT_PID MEMORY_BYTES RULE`.

Started with an empty environment and nothing open but a socket. Reads one command a line and answers each in order:

    P {"name": "source"}   load policies and forget all data    =   ! reason
    D tenant {json}        replace that tenant's document       =   ! reason
    E tenant {json}        evaluate RULE on that input          ={json}   ! reason

It imports nothing of Remit: a policy that breaks out of the engine finds no key and no connection here.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

PR_SET_PDEATHSIG = 1
MAX_REASON = 300


def limit(memory_bytes: int, parent_pid: int) -> None:
    """Bound this process and tie it to its parent. Comes before the engine, whose own pages would count against it."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends us
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit("the parent was gone before this process asked to die with it")


class Engines:
    """One engine a tenant, cloned from one that holds the policies, so that no tenant's data is in another's reach."""

    def __init__(self, rule: str) -> None:
        self._rule = f"data.{rule}"
        self._bare: Any = None
        self._by_tenant: dict[str, Any] = {}

    def load(self, modules: dict[str, str]) -> None:
        """Forget everything and take these policies; evaluates once, because some faults show only then."""
        import regorus

        engine = regorus.Engine()
        for name, source in modules.items():
            engine.add_policy(name, source)
        engine.set_input_json("{}")
        engine.eval_rule_as_json(self._rule)
        self._bare, self._by_tenant = engine, {}

    def replace(self, tenant: str, document: str) -> None:
        """Give a tenant a fresh engine with this document."""
        engine = self._bare.clone()
        engine.add_data_json(f'{{"directory":{{{json.dumps(tenant)}:{document}}}}}')
        self._by_tenant[tenant] = engine

    def evaluate(self, tenant: str, input_json: str) -> str:
        """The rule's value as JSON in one line."""
        engine = self._by_tenant.get(tenant, self._bare)
        engine.set_input_json(input_json)
        value: str = engine.eval_rule_as_json(self._rule)
        return value.replace("\n", "")  # only between tokens: inside a JSON text a line break is escaped


def answer(engines: Engines, line: bytes) -> bytes:
    """Do one command. Errors of the engine are answered; what is no Exception (a panic) ends the process."""
    command, _, rest = line.decode().partition(" ")
    try:
        if command == "E":
            return b"=" + engines.evaluate(*_tenant_and_json(rest)).encode()
        if command == "D":
            engines.replace(*_tenant_and_json(rest))
        else:
            engines.load(json.loads(rest))
    except MemoryError:
        raise  # what is left of the engine is not to be trusted
    except Exception as fault:
        reason = str(fault).partition("Stack backtrace")[0]
        return b"! " + " ".join(reason.split())[:MAX_REASON].encode("utf-8", "replace")
    return b"="


def _tenant_and_json(rest: str) -> tuple[str, str]:
    tenant, _, text = rest.partition(" ")
    return tenant, text


def lines(parent: socket.socket) -> Iterator[bytes]:
    """Commands until the parent hangs up."""
    pending = b""
    while chunk := parent.recv(1 << 18):
        *complete, pending = (pending + chunk).split(b"\n")
        yield from complete


def main() -> None:
    """Serve until the parent hangs up."""
    descriptor, parent_pid, memory_bytes, rule = sys.argv[1:]
    limit(int(memory_bytes), int(parent_pid))
    engines = Engines(rule)
    with socket.socket(fileno=int(descriptor)) as parent:
        for line in lines(parent):
            parent.sendall(answer(engines, line) + b"\n")  # at once: who is evaluated must be plain to the watchdog


if __name__ == "__main__":
    main()
