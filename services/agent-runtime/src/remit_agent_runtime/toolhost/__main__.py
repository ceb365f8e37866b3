"""The tool host process: `python -I -m remit_agent_runtime.toolhost FD`, started by ToolHostClient and by nobody
else."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path

from remit_agent_runtime.toolhost import wire
from remit_agent_runtime.toolhost.admission import Admission, LeaseOpener
from remit_agent_runtime.toolhost.carrying_out import ToolRunner
from remit_agent_runtime.toolhost.catalog import Catalog
from remit_agent_runtime.toolhost.confinement import confine
from remit_agent_runtime.toolhost.serving import Serving

KEY_BYTES = 32


def main() -> None:
    """Serve the socket whose descriptor is the only argument, then end at once: no thread may outlive the runtime."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    status = asyncio.run(serve(connection))
    sys.stderr.flush()
    os._exit(status)


async def serve(connection: socket.socket) -> int:
    """Take the setup, say that calls are taken, and take them until the runtime has gone; returns the exit status."""
    reader, writer = await asyncio.open_connection(sock=connection, limit=wire.LIMIT_BYTES)
    body = await wire.read_frame(reader)
    if body is None:
        return 0
    try:
        runner = build(wire.decode_setup(body), started_at=time.time())
    except (ValueError, OSError) as fault:
        writer.write(wire.frame(wire.Ready(refused=str(fault))))
        await writer.drain()
        return 1
    writer.write(wire.frame(wire.Ready(pid=os.getpid())))
    await Serving(reader, writer, runner).run()
    return 0


def build(setup: wire.Setup, *, started_at: float) -> ToolRunner:
    """Everything that this process is made of; raises ValueError naming the key file that cannot be read."""
    confine(memory_limit_bytes=setup.memory_limit_bytes)
    key, permit_public_key, broker_public_key = (
        read_key(Path(path)) for path in (setup.key_file, setup.permit_public_key_file, setup.broker_public_key_file)
    )
    return ToolRunner(
        catalog=Catalog(Path(setup.home)),
        admission=Admission(permit_public_key=permit_public_key, started_at=started_at),
        leases=LeaseOpener(key=key, broker_public_key=broker_public_key),
        threads=setup.threads,
        overdue_seconds=setup.overdue_seconds,
    )


def read_key(path: Path) -> bytes:
    """The key in a file as hex; raises ValueError naming the file, never its content."""
    # Not `remit_chassis.settings`, which does the same: it would load pydantic-settings into this process.
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as fault:
        raise ValueError(f"{path} holds no readable hex key ({type(fault).__name__})") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} holds {len(key)} bytes where {KEY_BYTES} belong")
    return key


if __name__ == "__main__":
    main()
