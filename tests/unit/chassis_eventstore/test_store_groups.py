"""Many saves at once: what shares a transaction, what fails alone, and that no gap and no other order comes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from unit.chassis_eventstore.documents import Document, Keys, open_store
from unit.chassis_eventstore.held_stores import SlowKeys, held, until, whole

from remit_contracts.errors import Absent, Conflict


async def test_saves_that_wait_share_one_transaction(tmp_path: Path) -> None:
    recorders, open_held = held(tmp_path / "lab.sqlite")
    async with open_store(tmp_path, recorder=open_held) as store:
        await store.open()
        recorders[0].go.clear()
        saves = [store.save_later(Document(text=str(number)), user=f"u-{number}") for number in range(20)]
        await until(lambda: bool(recorders[0].batches))
        recorders[0].go.set()
        assert sorted(await asyncio.gather(*saves)) == list(range(1, 21))
        assert len(recorders[0].batches) <= 3
        await whole(store, 20)


async def test_a_conflict_amid_a_group_fails_alone_and_leaves_no_gap(tmp_path: Path) -> None:
    recorders, open_held = held(tmp_path / "lab.sqlite")
    keys = Keys()
    async with open_store(tmp_path, keys, recorder=open_held) as store:
        document = Document(text="one")
        await store.save(document, user="u-1")
        mine, theirs = await store.load(Document, document.id), await store.load(Document, document.id)
        mine.edit(text="mine")
        theirs.edit(text="theirs")
        recorders[0].go.clear()
        blocker = store.save_later(Document(text="holds the writer"), user="u-1")
        await until(lambda: len(recorders[0].batches) == 2)
        group = [
            store.save_later(Document(text="before"), user="u-1"),
            store.save_later(mine, user="u-1"),
            store.save_later(theirs, user="u-1"),
            store.save_later(Document(text="after"), user="u-1"),
        ]
        recorders[0].go.set()
        results = await asyncio.gather(blocker, *group, return_exceptions=True)
        assert recorders[0].batches[-1] == 4
        assert results[:3] == [2, 3, 4]
        assert isinstance(results[3], Conflict)
        assert results[4] == 5
        assert (await store.load(Document, document.id)).text == "mine"
        await whole(store, 5)


async def test_what_follows_from_a_refused_save_is_refused_too(tmp_path: Path) -> None:
    """A later version must not be stored behind somebody else's: it was decided on another history."""
    recorders, open_held = held(tmp_path / "lab.sqlite")
    async with open_store(tmp_path, recorder=open_held) as store:
        document = Document(text="one")
        await store.save(document, user="u-1")
        winner, stale = await store.load(Document, document.id), await store.load(Document, document.id)
        winner.edit(text="winner")
        await store.save(winner, user="u-1")
        recorders[0].go.clear()
        saves = []
        for number in range(3):  # the first is taken alone, the others wait together
            stale.edit(text=f"stale {number}")
            saves.append(store.save_later(stale, user="u-1"))
            await until(lambda: len(recorders[0].batches) == 3)
        recorders[0].go.set()
        results = await asyncio.gather(*saves, return_exceptions=True)
        assert [type(result) for result in results] == [Conflict] * 3
        assert (await store.load(Document, document.id)).text == "winner"
        await whole(store, 2)


async def test_followers_within_one_transaction_are_refused_too(tmp_path: Path) -> None:
    recorders, open_held = held(tmp_path / "lab.sqlite")
    async with open_store(tmp_path, recorder=open_held) as store:
        document = Document(text="one")
        await store.save(document, user="u-1")
        winner, stale = await store.load(Document, document.id), await store.load(Document, document.id)
        winner.edit(text="winner")
        await store.save(winner, user="u-1")
        recorders[0].go.clear()
        blocker = store.save_later(Document(text="holds the writer"), user="u-1")
        await until(lambda: len(recorders[0].batches) == 3)
        stale.edit(text="taken")
        first = store.save_later(stale, user="u-1")
        stale.edit(text="would fit behind")
        second = store.save_later(stale, user="u-1")
        recorders[0].go.set()
        results = await asyncio.gather(blocker, first, second, return_exceptions=True)
        assert recorders[0].batches[-1] == 2
        assert [type(result) for result in results] == [int, Conflict, Conflict]
        await whole(store, 3)


async def test_hundreds_of_racing_saves_leave_no_gap_and_lose_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        documents = [Document(text="0") for _ in range(4)]
        await asyncio.gather(*(store.save(document, user="u-1") for document in documents))
        accepted = [0] * 4

        async def edit(index: int) -> None:
            for _ in range(20):
                document = await store.load(Document, documents[index].id)
                document.edit(text=str(int(document.text) + 1))
                try:
                    await store.save(document, user=f"u-{index}")
                except Conflict:
                    continue
                accepted[index] += 1

        await asyncio.gather(*(edit(number % 4) for number in range(16)))
        for index, document in enumerate(documents):
            assert (await store.load(Document, document.id)).text == str(accepted[index])
        assert 0 < sum(accepted) < 16 * 20
        await whole(store, 4 + sum(accepted))


async def test_two_processes_on_one_file_leave_no_gap(tmp_path: Path) -> None:
    keys = Keys()
    async with (
        open_store(tmp_path / "lab.sqlite", keys) as one,
        open_store(tmp_path / "lab.sqlite", keys) as other,
    ):
        for store in (one, other, other, one, one, other):
            await store.save(Document(text="x"), user="u-1")
        one._tail.clear()
        assert await one.verify() is None
        assert [envelope.notification_id for envelope in await one.read(1, 10)] == [1, 2, 3, 4, 5, 6]


async def test_saves_of_one_aggregate_keep_their_order_while_the_key_is_fetched(tmp_path: Path) -> None:
    keys = SlowKeys()
    keys._kept["acme", "u-2"] = (bytes(32), float("inf"))  # at hand, and still not to be stored before u-1's
    async with open_store(tmp_path / "lab.sqlite", keys) as store:
        document = Document(text="0")
        saves = [store.save_later(document, user="u-1")]
        for number in range(1, 6):
            document.edit(text=str(number))
            saves.append(store.save_later(document, user="u-1" if number < 4 else "u-2"))
            await asyncio.sleep(0)
        keys.come.set()
        assert await asyncio.gather(*saves) == [1, 2, 3, 4, 5, 6]
        document.edit(text="6")
        assert await store.save(document, user="u-1") == 7
        assert (await store.load(Document, document.id)).text == "6"
        assert [envelope.originator_version for envelope in await store.read(1, 10)] == [1, 2, 3, 4, 5, 6, 7]


async def test_a_user_whose_key_is_slow_holds_nobody_up(tmp_path: Path) -> None:
    keys = SlowKeys()
    keys._kept["acme", "u-2"] = (bytes(32), float("inf"))
    async with open_store(tmp_path / "lab.sqlite", keys) as store:
        slow = store.save_later(Document(text="slow"), user="u-1")
        assert await store.save(Document(text="quick"), user="u-2") == 1
        assert not slow.done()
        keys.come.set()
        assert await slow == 2


async def test_nothing_is_saved_for_a_user_who_was_erased(tmp_path: Path) -> None:
    keys = Keys()
    async with open_store(tmp_path / "lab.sqlite", keys) as store:
        document = Document(text="one")
        await store.save(document, user="u-1")
        keys.erased.add("u-1")
        keys.forget("acme", "u-1")
        document.edit(text="two")
        with pytest.raises(Absent) as refusal:
            await store.save(document, user="u-1")
        assert refusal.value.refusal_code == "absent.erased"
        with pytest.raises(Absent):
            await store.load(Document, document.id)
        assert await store.save(Document(text="other"), user="u-2") == 2
        await whole(store, 2)  # the record stays, and still verifies


async def test_an_event_that_cannot_be_encoded_fails_its_own_save(tmp_path: Path) -> None:
    async with open_store(tmp_path / "lab.sqlite") as store:
        with pytest.raises(TypeError):
            await store.save(Document(text={1, 2}), user="u-1")  # type: ignore[arg-type]
        assert await store.save(Document(text="one"), user="u-1") == 1
