"""One child process of `remit up`: how it is born, says that it is ready, and ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from remit_chassis.readiness import READY_FD
from remit_contracts.errors import Refusal
from remit_infra.logfile import keep_short, last_line, redirect_output
from remit_infra.signals import HANDLED

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Part:
    """What is to run in a process of its own.

    `run` is called in the child and may exec. It is ready when `probe` says so, or when it says so itself through the
    descriptor in REMIT_READY_FD (`announces`); a task does neither, and ends. `apart`: in a process group of its own,
    so that Ctrl-C at a terminal reaches the supervisor alone, which ends all in their order. `logged`: its output goes
    to a file rather than where the parent's goes.
    """

    name: str
    run: Callable[[], None]
    probe: Callable[[], bool] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    announces: bool = False
    apart: bool = False
    logged: bool = True


class Child:
    """A part while it runs. `state`: starting, ready or gone."""

    def __init__(self, part: Part, log: Path, *, inherited: Iterable[int]) -> None:
        """Fork. `inherited`: descriptors of the parent that the child must close."""
        self.part = part
        self.log = log
        self.state = "starting"
        self.failure = ""
        self.waits_for: tuple[str, str] = ("", "")
        """Why it is not ready: a refusal's code, and the reason."""
        self.contradicted: list[tuple[str, str]] = []
        """Tenants that it does not serve, each with the reason."""
        self.exit_code: int | None = None
        self._said = b""
        if part.logged:
            keep_short(log)
        self.announcements, announcing = os.pipe()
        os.set_blocking(self.announcements, False)
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        # A SIGTERM that came before the child has put the handlers back would be counted by a copy of the parent's.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _live(part, log, parent, announcing, (*inherited, self.announcements))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            os.close(announcing)

    def look(self) -> None:
        """Bring `state` up to date: read what it announced, probe it, reap it. Keep the log of one that lives short."""
        if self.state == "gone":
            return
        if self.announcements >= 0:
            self._listen()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            if self.announcements >= 0:  # its last words may have come after the look above
                self._listen()
            self.exit_code = os.waitstatus_to_exitcode(status)
            self.state = "gone"
            self._close()
        elif self.state == "starting" and self.part.probe and self.part.probe():
            self.state = "ready"
        if self.part.logged and self.state != "gone":  # the last words of one that is gone say why
            keep_short(self.log)

    def signal(self, number: int) -> None:
        """Send a signal unless it was reaped already: its number may be another's by then."""
        if self.state != "gone":
            os.kill(self.pid, number)

    def why_it_ended(self) -> str:
        """One line for people."""
        if self.failure:
            return self.failure
        code = self.exit_code or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        last = last_line(self.log) if self.part.logged else ""
        return f"{self.part.name} {how}{f': {last}' if last else ''} (see {self.log})"

    def _listen(self) -> None:
        try:
            data = os.read(self.announcements, 4096)
        except BlockingIOError:
            return
        *lines, self._said = (self._said + data).split(b"\n")
        if not data:
            lines.append(self._said)
        for line in lines:
            self._hear(line.decode(errors="replace"))
        if not data or self.state == "ready" or self.failure:
            self._close()

    def _hear(self, line: str) -> None:
        """One word of remit_chassis.readiness."""
        word, _, rest = line.partition(": ")
        subject, _, reason = rest.partition(" ")
        if word == "ready":
            self.state = "ready"
        elif word == "failed":
            self.failure = rest
        elif word == "waiting":
            self.waits_for = (subject, reason)
        elif word == "contradicted":
            self.contradicted.append((subject, reason))

    def _close(self) -> None:
        if self.announcements >= 0:
            os.close(self.announcements)
            self.announcements = -1


def _live(part: Part, log: Path, parent: int, announcing: int, inherited: Iterable[int]) -> NoReturn:
    """The child's whole life; nothing of the parent's stack runs again in it."""
    code = 1
    try:
        _die_with(parent)
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        if part.apart:
            os.setpgid(0, 0)
        for descriptor in inherited:
            if descriptor >= 0:
                os.close(descriptor)
        if part.logged:
            redirect_output(log)
        os.environ.update(part.environment)
        if part.announces:
            os.environ[READY_FD] = str(announcing)
        part.run()
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except Refusal as refusal:
        os.write(announcing, b"failed: " + " ".join(refusal.reason.split())[:500].encode() + b"\n")
        print(refusal.reason, file=sys.stderr)
        code = refusal.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent is gone, however that went. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went between the fork and the line above
        os._exit(1)
