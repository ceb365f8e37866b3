"""Processor time and memory of real processes, and waiting until they are idle."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from remit_bench import usage

SPIN = "import sys, time\nuntil = time.process_time() + 0.3\nwhile time.process_time() < until: pass\n"


def child(program: str) -> subprocess.Popen[str]:
    """A Python process that does `program`, says so, and then waits for its standard input to close."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{program}\nprint('done', flush=True)\nimport sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    return process


@pytest.fixture
def spun():
    process = child(SPIN)
    yield process
    process.communicate("", timeout=10)


def test_the_time_of_everything_below_a_process_counts(spun) -> None:
    """The kernel tells user and system time each in whole hundredths of a second, rounded down."""
    assert usage.cpu_seconds([os.getpid()]) >= usage.cpu_seconds([spun.pid]) >= 0.3 - 2 * 0.01


def test_a_process_below_two_that_are_named_counts_once(spun) -> None:
    together = usage.cpu_seconds([os.getpid(), spun.pid])
    assert together - usage.cpu_seconds([os.getpid()]) < 0.3 - 2 * 0.01


def test_a_process_that_is_gone_counts_nothing() -> None:
    process = child("")
    process.communicate("", timeout=10)
    assert usage.cpu_seconds([process.pid]) == 0.0
    assert usage.memory(process.pid) == usage.Memory(0, 0)


def test_pages_that_are_shared_make_the_sum_smaller(spun) -> None:
    size = usage.memory(os.getpid())
    assert 0 < size.shared <= size.resident


async def test_idle_returns_when_nothing_works(spun) -> None:
    async with asyncio.timeout(usage.SETTLES_WITHIN_SECONDS / 2):
        await usage.idle([spun.pid])


async def test_idle_waits_for_who_still_works() -> None:
    process = subprocess.Popen([sys.executable, "-c", SPIN.replace("0.3", "1.0")])
    try:
        await usage.idle([process.pid])
        assert process.poll() == 0
    finally:
        process.kill()
        process.wait()
