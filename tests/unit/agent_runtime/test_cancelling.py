"""Every accepted run has exactly one end on record, whenever it is cancelled and whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from unit.agent_runtime.runtime import ME, Runtime
from unit.agent_runtime.world import TENANT, USER, World, kinds

from remit_agent_runtime.sweep import Sweep
from remit_chassis.eventstore.groupcommit import GroupCommit
from remit_contracts.errors import Unavailable

ENDS = ("Completed", "Failed", "Cancelled")


async def end_of(world: World, run_id: str) -> str:
    """The one end of a run, which is its last event; its versions are 1, 2, 3 without a gap."""
    events = [event for event in await world.events() if event.originator_id.hex == run_id]
    assert [event.originator_version for event in events] == list(range(1, len(events) + 1))
    ends = [name for name in kinds(events) if name in ENDS]
    assert len(ends) == 1, kinds(events)
    assert kinds(events)[-1] == ends[0]
    return ends[0]


def sweep_of(runtime: Runtime) -> Sweep:
    world = runtime.world
    return Sweep(stores=lambda: world, queue=runtime.queue, clock=world.clock)  # type: ignore[arg-type,return-value]


class Mishaps:
    """What may happen beside a cancellation, by seed: commits of which the loop hears late, cancellations that are
    swallowed, saves that fail, jobs that come late or never."""

    def __init__(self, runtime: Runtime, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chance = random.Random(seed)
        self.runtime = runtime
        self.deliveries: list[asyncio.Task[None]] = []
        write, ask, save_later = GroupCommit._write, runtime.world.services.ask, runtime.world.store.save_later
        put, chance = runtime.queue.put, self.chance

        def written_and_told_late(commits: GroupCommit, writes: Any) -> Any:
            outcomes = write(commits, writes)
            time.sleep(chance.choice((0.0, 0.002, 0.01)))  # in the store's thread, between the commit and its notice
            return outcomes

        async def swallowing(*asked: Any, **options: Any) -> bytes:
            if chance.random() < 0.5:
                await swallow(chance.random() * 0.01)
            return await ask(*asked, **options)

        def failing(aggregate: Any, *, user: str) -> asyncio.Future[int]:
            # Not the acceptance: a run that was never accepted is owed no end.
            if aggregate.version > 1 and chance.random() < 0.1:
                aggregate.collect_events()
                refused = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_later(0.002, refused.set_exception, Unavailable("the disk is full"))
                return refused
            return save_later(aggregate, user=user)

        async def deliver(run_id: UUID) -> None:
            await asyncio.sleep(chance.random() * 0.02)
            put(TENANT, USER, run_id)

        async def publish(tenant: str, user: str, agent: str, run_id: UUID) -> None:
            if chance.random() < 0.7:
                self.deliveries.append(asyncio.create_task(deliver(run_id)))

        monkeypatch.setattr(GroupCommit, "_write", written_and_told_late)
        monkeypatch.setattr(runtime.world.services, "ask", swallowing)
        monkeypatch.setattr(runtime.world.store, "save_later", failing)
        monkeypatch.setattr(runtime.jobs, "publish", publish)

    async def until_nothing_is_owed(self) -> None:
        """What the sweep does until every run has ended."""
        await asyncio.gather(*self.deliveries)
        sweep = sweep_of(self.runtime)
        async with asyncio.timeout(30):
            while await sweep.once(quiet_seconds=0.0) or len(self.runtime.queue):
                await asyncio.sleep(0.005)


async def swallow(seconds: float) -> None:
    """As Python 3.11's `wait_for` does when what it waits for is done at the same moment."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(seconds)


@pytest.mark.parametrize("seed", range(12))
async def test_cancelling_at_any_moment_leaves_exactly_one_end(
    runtime: Runtime, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mishaps = Mishaps(runtime, seed, monkeypatch)
    runtime.world.gate._ask = runtime.world.services.ask  # bound before it was replaced
    started: list[str] = []
    for _ in range(8):
        started.append((await runtime.start()).run_id)
        await asyncio.sleep(mishaps.chance.random() * 0.04)
        try:
            await runtime.runs.cancel(started[-1], ME)
        except Unavailable:
            continue  # a save failed: the run stays owed
        await end_of(runtime.world, started[-1])
    await mishaps.until_nothing_is_owed()
    for run_id in started:
        await end_of(runtime.world, run_id)
        assert (await runtime.world.load(UUID(hex=run_id))).has_ended


async def test_a_cancellation_that_is_swallowed_is_made_again(runtime: Runtime) -> None:
    reached = asyncio.Event()
    runtime.world.host.hang()
    runtime.world.gate._ask = swallows_once(runtime, reached)
    started = await runtime.start()
    await reached.wait()
    async with asyncio.timeout(10):
        assert (await runtime.runs.cancel(started.run_id, ME)).status == "cancelled"
    assert await end_of(runtime.world, started.run_id) == "Cancelled"


async def test_a_stop_is_not_held_up_by_a_cancellation_that_is_swallowed(runtime: Runtime) -> None:
    reached = asyncio.Event()
    runtime.world.gate._ask = swallows_once(runtime, reached)
    started = await runtime.start()
    await reached.wait()
    await runtime.world.gate.drain(0.0)
    async with asyncio.timeout(10):
        await runtime.queue.close()
    assert (await runtime.runs.show(started.run_id, ME)).status == "running"


def swallows_once(runtime: Runtime, reached: asyncio.Event) -> Callable[..., Awaitable[bytes]]:
    """Asks as the world does, but the first question outlives a cancellation; `reached` says that it was put."""
    ask = runtime.world.services.ask

    async def swallowing(*asked: Any, **options: Any) -> bytes:
        if not reached.is_set():
            reached.set()
            await swallow(60)
        return await ask(*asked, **options)

    return swallowing


async def test_two_who_cancel_at_once_end_it_once(runtime: Runtime) -> None:
    reached = runtime.world.host.hang()
    started = await runtime.start()
    await reached.wait()
    answers = await asyncio.gather(*(runtime.runs.cancel(started.run_id, ME) for _ in range(4)))
    assert {answer.status for answer in answers} == {"cancelled"}
    assert await end_of(runtime.world, started.run_id) == "Cancelled"


@pytest.mark.parametrize("fails_at", ["Started", "ModelCalled", "ToolCallAuthorized", "ToolCallCompleted"])
async def test_a_run_whose_save_fails_while_it_is_cancelled_has_no_gap_and_one_end(
    runtime: Runtime, fails_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: asyncio.Future[asyncio.Future[int]] = asyncio.get_running_loop().create_future()
    save_later = runtime.world.store.save_later

    def failing(aggregate: Any, *, user: str) -> asyncio.Future[int]:
        if kinds(list(aggregate.pending_events))[-1:] == [fails_at] and not under_way.done():
            aggregate.collect_events()
            under_way.set_result(asyncio.get_running_loop().create_future())
            return under_way.result()
        return save_later(aggregate, user=user)

    monkeypatch.setattr(runtime.world.store, "save_later", failing)
    started = await runtime.start()
    saving = await under_way
    cancelling = asyncio.create_task(runtime.runs.cancel(started.run_id, ME))
    held = runtime.queue._in_hand[UUID(hex=started.run_id)]
    async with asyncio.timeout(10):
        while not held.cancellation.heard:
            await asyncio.sleep(0.001)
    saving.set_exception(Unavailable("the disk is full"))
    assert (await cancelling).status == "cancelled"
    assert await end_of(runtime.world, started.run_id) == "Cancelled"


async def test_a_run_out_of_time_whose_save_fails_stays_owed_without_a_gap(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits = "limits: {seconds: 0.2}\n"
    (tmp_path / "agents" / TENANT / "analyst.yaml").write_text(f"name: analyst\ntools: [sql]\n{limits}")
    save_later, failed = runtime.world.store.save_later, []

    def failing(aggregate: Any, *, user: str) -> asyncio.Future[int]:
        if kinds(list(aggregate.pending_events)) == ["ModelCalled"] and not failed:
            aggregate.collect_events()
            failed.append(asyncio.get_running_loop().create_future())
            asyncio.get_running_loop().call_later(0.5, failed[0].set_exception, Unavailable("the disk is full"))
            return failed[0]
        return save_later(aggregate, user=user)

    monkeypatch.setattr(runtime.world.store, "save_later", failing)
    started = await runtime.start()
    assert (await runtime.ended(started.run_id)).status == "running"
    assert failed[0].done()
    assert await sweep_of(runtime).once(quiet_seconds=0.0) == 1
    assert (await runtime.ended(started.run_id)).status == "completed"
    assert await end_of(runtime.world, started.run_id) == "Completed"


async def test_a_run_whose_job_was_lost_is_found_by_the_sweep(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*job: Any) -> None:
        """Taken, and gone with the bus."""

    monkeypatch.setattr(runtime.jobs, "publish", lost)
    started = await runtime.start()
    assert await sweep_of(runtime).once(quiet_seconds=0.0) == 1
    assert (await runtime.ended(started.run_id)).status == "completed"


async def test_a_run_that_is_cancelled_before_its_job_comes_gives_its_place_back(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*job: Any) -> None:
        """Still on its way."""

    monkeypatch.setattr(runtime.jobs, "publish", late)
    started = await runtime.start()
    assert len(runtime.queue) == 1
    assert (await runtime.runs.cancel(started.run_id, ME)).status == "cancelled"
    assert len(runtime.queue) == 0
    runtime.queue.put(TENANT, USER, UUID(hex=started.run_id))
    await runtime.ended(started.run_id)
    assert await end_of(runtime.world, started.run_id) == "Cancelled"
