"""Places in the queue: what requests under one idempotency key keep together, and give back one by one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from unit.agent_runtime.runtime import ME, Runtime
from unit.agent_runtime.world import TENANT, USER, World

from remit_contracts.errors import Overloaded, Unavailable


class Together:
    """Two requests under one key, both waiting for policy; `first` and `second` let one go on, or fail it."""

    def __init__(self, world: World, home: Path) -> None:
        self.runtime = Runtime(world, home, limit=1)
        self.runtime.jobs.on_its_way = True
        self.runtime.runs._patience_seconds = 0.0
        self._doors: list[asyncio.Future[None]] = []
        self._answer = world.services.ask

    async def open(self) -> None:
        self.runtime.runs._ask = self._ask
        self._tasks = {asyncio.create_task(self.runtime.start(idempotency_key="k")) for _ in range(2)}
        async with asyncio.timeout(5):
            while len(self._doors) < 2:
                await asyncio.sleep(0.005)
        self.first, self.second = self._doors

    async def _ask(self, *about: Any, **within: Any) -> bytes:
        if about[2] != "policy":
            return await self._answer(*about, **within)
        door: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._doors.append(door)
        await door
        return await self._answer(*about, **within)

    async def answer(self) -> Any:
        """What the next one of them is answered."""
        done, self._tasks = await asyncio.wait(self._tasks, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        [answered] = done
        return await answered

    def require_full(self) -> None:
        """No other run has a place."""
        assert len(self.runtime.queue) == 1
        with pytest.raises(Overloaded):
            self.runtime.queue.admit(TENANT, USER, UUID(int=404))


@pytest.fixture
async def together(world: World, tmp_path: Path) -> Together:
    made = Together(world, tmp_path)
    await made.open()
    return made


async def test_a_request_that_fails_leaves_the_place_to_the_other_of_its_key(together: Together) -> None:
    together.first.set_exception(Unavailable("policy is away"))
    with pytest.raises(Unavailable):
        await together.answer()
    together.require_full()
    together.second.set_result(None)
    assert (await together.answer()).status == "accepted"
    together.require_full()


async def test_a_request_that_comes_second_leaves_its_place_to_the_accepted_run(together: Together) -> None:
    together.first.set_result(None)
    accepted = await together.answer()
    together.second.set_result(None)
    assert (await together.answer()).run_id == accepted.run_id
    together.require_full()  # its job is on its way
    together.runtime.queue.put(TENANT, USER, UUID(hex=accepted.run_id))
    assert (await together.runtime.ended(accepted.run_id)).status == "completed"
    assert len(together.runtime.queue) == 0


async def test_when_all_of_a_key_fail_the_place_is_free(together: Together) -> None:
    for door in (together.first, together.second):
        door.set_exception(Unavailable("policy is away"))
        with pytest.raises(Unavailable):
            await together.answer()
    assert len(together.runtime.queue) == 0


async def test_a_cancelled_run_gives_its_place_back_before_its_job_comes(world: World, tmp_path: Path) -> None:
    runtime = Runtime(world, tmp_path, limit=1)
    runtime.jobs.on_its_way = True
    for _ in range(2):
        started = await runtime.start()
        assert (await runtime.runs.cancel(started.run_id, ME)).status == "cancelled"
    assert len(runtime.queue) == 0


async def test_a_run_that_is_cancelled_before_its_first_step_gives_its_place_back(world: World, tmp_path: Path) -> None:
    runtime = Runtime(world, tmp_path)
    runtime.jobs.on_its_way = True
    run_id = UUID(hex=(await runtime.start()).run_id)
    runtime.queue.put(TENANT, USER, run_id)
    assert await runtime.queue.cancel(run_id, by=USER) is False, "nobody has recorded its end"
    assert (run_id in runtime.queue, len(runtime.queue)) == (False, 0)
