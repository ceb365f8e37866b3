"""What is known of users and tenants is fresh, is asked for once, and never of two revisions."""

import asyncio

import pytest
from unit.policy.tenants import described

from remit_contracts.directory import SubjectDescribed
from remit_contracts.errors import Absent, Unavailable
from remit_policy import directory as module
from remit_policy.directory import FRESH_SECONDS, Directory, FreshCache


class Auth:
    """Stands in for the auth service: answers with its state of the moment, and counts."""

    def __init__(self):
        self.revision = 7
        self.roles = ("analyst",)
        self.asked = []
        self.answering = asyncio.Event()
        self.answering.set()
        self.fault = None
        self.lagging_subject_revision = None

    async def ask(self, tenant, user, verb):
        self.asked.append((tenant, user, verb))
        if self.fault:
            raise self.fault
        if verb == "describe-tenant":
            answer = described(revision=self.revision)
        else:
            answer = SubjectDescribed(
                user=user,
                handle="analyst",
                active=True,
                roles=self.roles,
                revision=self.lagging_subject_revision or self.revision,
            )
        await self.answering.wait()
        return answer.to_bytes()

    def count(self, verb):
        return sum(asked[2] == verb for asked in self.asked)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def auth():
    return Auth()


@pytest.fixture
def directory(auth, clock):
    return Directory(auth.ask, monotonic=clock)


async def test_what_is_fresh_is_not_asked_again(auth, directory, clock):
    await directory.standing("acme", "u-1")
    clock.now += FRESH_SECONDS - 0.001
    await directory.standing("acme", "u-1")
    assert auth.asked == [("acme", "u-1", "describe-subject"), ("acme", "system", "describe-tenant")]


async def test_after_two_seconds_it_is_asked_again(auth, directory, clock):
    await directory.standing("acme", "u-1")
    auth.roles, auth.revision = (), 8
    clock.now += FRESH_SECONDS
    subject, data = await directory.standing("acme", "u-1")
    assert (subject.roles, data.revision) == ((), "8")


async def test_a_notice_drops_what_is_known_of_that_tenant_only(auth, directory):
    await directory.standing("acme", "u-1")
    await directory.standing("globex", "u-1")
    directory.forget("acme")
    auth.roles, auth.revision = (), 8
    assert (await directory.standing("acme", "u-1"))[0].roles == ()
    assert (await directory.standing("globex", "u-1"))[0].roles == ("analyst",)


async def test_the_same_user_id_in_two_tenants_is_two_users(auth, directory):
    await directory.standing("acme", "u-1")
    auth.roles = ()
    assert (await directory.standing("globex", "u-1"))[0].roles == ()


async def test_an_answer_that_was_under_way_at_the_notice_is_not_believed(clock):
    state, gate, asked = ["old"], asyncio.Event(), []

    async def ask(tenant, user):
        answer = state[0]
        asked.append(answer)
        await gate.wait()
        return answer

    cache = FreshCache(ask, monotonic=clock)
    asking = asyncio.ensure_future(cache.get(("acme", "u-1")))
    while not asked:
        await asyncio.sleep(0)
    state[0] = "new"
    cache.forget("acme")
    gate.set()
    assert await asking == "new"
    assert cache.fresh(("acme", "u-1")) == "new"
    assert asked == ["old", "new"]


async def test_many_at_once_ask_once(auth, directory):
    await asyncio.gather(*(directory.standing("acme", "u-1") for _ in range(50)))
    assert (auth.count("describe-subject"), auth.count("describe-tenant")) == (1, 1)


async def test_one_who_gives_up_waiting_takes_nobody_with_them(auth, directory):
    auth.answering.clear()
    asking = [asyncio.ensure_future(directory.standing("acme", "u-1")) for _ in range(3)]
    while not auth.asked:
        await asyncio.sleep(0)
    asking[0].cancel()
    auth.answering.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1][0].roles == found[2][0].roles == ("analyst",)


async def test_a_failure_is_told_to_all_who_wait_and_not_kept(auth, directory):
    auth.fault = Unavailable("auth is down")
    found = await asyncio.gather(*(directory.standing("acme", "u-1") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(one, Unavailable) for one in found)
    auth.fault = None
    assert (await directory.standing("acme", "u-1"))[0].roles == ("analyst",)


async def test_an_unknown_user_is_absent(auth, directory):
    auth.fault = Absent("no such user")
    with pytest.raises(Absent):
        await directory.standing("acme", "u-1")


async def test_roles_and_grants_are_of_one_revision_even_when_the_notice_was_lost(auth, directory):
    await directory.standing("acme", "u-1")
    auth.revision, auth.roles = 8, ()
    subject, data = await directory.standing("acme", "u-2")  # u-2 is asked for now, the tenant's roles were kept
    assert (str(subject.revision), data.revision) == ("8", "8")
    assert (await directory.standing("acme", "u-1"))[0].roles == ()


async def test_a_directory_that_never_agrees_with_itself_is_unavailable(auth, directory):
    auth.lagging_subject_revision = 6
    with pytest.raises(Unavailable, match="changes faster"):
        await directory.standing("acme", "u-1")


async def test_the_memory_of_users_is_bounded(auth, directory, monkeypatch):
    monkeypatch.setattr(module, "MAX_ENTRIES", 10)
    for number in range(50):
        await directory.standing("acme", f"u-{number}")
    assert len(directory._subjects._kept) == 10
    before = len(auth.asked)
    await directory.standing("acme", "u-49")
    assert len(auth.asked) == before
