"""A metered coroutine behaves as the coroutine itself."""

from __future__ import annotations

import asyncio

import pytest

from remit_agent_runtime.metering import CpuMetered


async def test_every_cancellation_reaches_the_coroutine_not_the_first_alone() -> None:
    heard: list[str] = []

    async def tidying() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.append("first")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard.append("second")
                raise

    async def metered() -> None:
        await CpuMetered(tidying())

    task = asyncio.create_task(metered())
    for _ in range(2):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == ["first", "second"]
