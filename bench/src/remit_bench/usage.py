"""Processor time and memory of a process and all that it started."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import psutil

IDLE_SHARE = 0.10
"""Of one core: below it, all processes together count as idle."""
LOOK_SECONDS = 0.25
CALM_SECONDS = 1.75
"""Work that waits for a pause, such as projecting the read models, begins within it."""
SETTLES_WITHIN_SECONDS = 60.0


class Memory(NamedTuple):
    """Bytes. `shared` is the sum of proportional set sizes (PSS): a page that n processes share counts 1/n for each."""

    resident: int
    shared: int


def tree(pid: int) -> list[psutil.Process]:
    """The process and everything below it."""
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that these processes and all below them have used until now."""
    total = 0.0
    for process in {process for pid in pids for process in _tree_or_nothing(pid)}:
        try:
            used = process.cpu_times()
        except psutil.Error:  # it ended meanwhile
            continue
        total += used.user + used.system
    return total


def memory(pid: int) -> Memory:
    """What a process and everything below it hold now.

    Where the system tells no PSS of a process (another system than Linux, a process that may not be inspected) its
    resident size counts in full.
    """
    resident = shared = 0
    for process in _tree_or_nothing(pid):
        try:
            size = process.memory_info().rss
        except psutil.Error:
            continue
        resident += size
        shared += _pss(process) or size
    return Memory(resident, shared)


async def idle(pids: Iterable[int]) -> None:
    """Wait until the processes have worked off what a load left behind, or SETTLES_WITHIN_SECONDS."""
    watched = list(pids)
    give_up_at = time.monotonic() + SETTLES_WITHIN_SECONDS
    used, at = cpu_seconds(watched), time.monotonic()
    calm_since = at
    while time.monotonic() < give_up_at:
        await asyncio.sleep(LOOK_SECONDS)
        now, now_at = cpu_seconds(watched), time.monotonic()
        if now - used >= IDLE_SHARE * (now_at - at):
            calm_since = now_at
        elif now_at - calm_since >= CALM_SECONDS:
            return
        used, at = now, now_at


def _tree_or_nothing(pid: int) -> list[psutil.Process]:
    try:
        return tree(pid)
    except psutil.NoSuchProcess:
        return []


def _pss(process: psutil.Process) -> int:
    try:
        told: Any = process.memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(told, "pss", 0))
