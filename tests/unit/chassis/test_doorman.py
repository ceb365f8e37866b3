"""The doorman before users' commands: who is let in, who is refused where, and what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from remit_chassis.doorman import Bounds, Doorman
from remit_chassis.endpoints import Endpoint
from remit_chassis.telemetry import Metrics
from remit_contracts import subjects
from remit_contracts.identity import Caller

OF_ONE, OF_ALL, REFUSALS = 2, 3, 5


class Hall:
    """What lies behind the doorman: commands stay until `answer`, what is said is kept in `said`."""

    def __init__(self) -> None:
        self.let_in: list[str] = []
        self.said: list[tuple[str, bytes]] = []
        self.answered = asyncio.Event()
        self.metrics = Metrics()
        bounds = Bounds(of_one_user=OF_ONE, of_all=OF_ALL, refusals_per_second=REFUSALS)
        self.doorman = Doorman(self._serve, self._publish, self.metrics, bounds)
        self.endpoint = Endpoint("cmd", "audit", "echo", self._handle, max_bytes=100)
        self.door = self.doorman.door(self.endpoint)
        self._tasks: list[asyncio.Task[bool]] = []

    def knock(
        self, user: str = "u-1", *, tenant: str = "acme", reply: str | None = None, payload: bytes = b"{}"
    ) -> None:
        own = f"{subjects.user_inbox(Caller(tenant, user, 's-1'))}.x"
        subject = subjects.command(tenant, user, "audit", "echo")
        self.door(Msg(Client(), subject, own if reply is None else reply, payload))

    async def answer(self) -> None:
        """Every command that was let in."""
        self.answered.set()
        await asyncio.gather(*self._tasks)
        await asyncio.sleep(0)  # the tasks' callbacks
        self.answered.clear()

    async def heard(self, count: int) -> list[tuple[str, str]]:
        """The first `count` refusals: where, and the code."""
        async with asyncio.timeout(10):
            while len(self.said) < count:
                await asyncio.sleep(0)
        return [(where, orjson.loads(what)["error"]["code"]) for where, what in self.said]

    def counted(self, outcome: str) -> float:
        labels = {"kind": "cmd", "verb": "echo", "outcome": outcome}
        return self.metrics.registry.get_sample_value("remit_requests_total", labels) or 0.0

    def _serve(self, endpoint: Endpoint, message: Msg) -> asyncio.Task[bool]:
        assert endpoint is self.endpoint
        self.let_in.append(message.subject)
        task = asyncio.ensure_future(self.answered.wait())
        self._tasks.append(task)
        return task

    async def _publish(self, subject: str, payload: bytes) -> None:
        if subject.endswith(".away"):
            raise ConnectionError("the bus is away")
        self.said.append((subject, payload))

    async def _handle(self, payload: bytes, caller: Caller) -> bytes:
        return payload


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    made = Hall()
    saying = asyncio.ensure_future(made.doorman.run())
    yield made
    made.doorman.close()
    await made.answer()
    saying.cancel()
    await asyncio.wait([saying])


async def test_one_user_over_the_bound_is_refused_and_another_is_let_in(hall: Hall) -> None:
    for _ in range(OF_ONE + 1):
        hall.knock()
    hall.knock("u-2")
    assert hall.let_in == [subjects.command("acme", user, "audit", "echo") for user in ("u-1", "u-1", "u-2")]
    assert await hall.heard(1) == [("_INBOX.acme.u-1.s-1.x", "overloaded.requests")]
    refusal = orjson.loads(hall.said[0][1])["error"]
    assert refusal["retry_after_seconds"] == 1.0
    assert refusal["reason"].startswith(f"{OF_ONE} commands of yours")
    assert hall.counted("overloaded.requests") == 1


async def test_a_namesake_in_another_tenant_is_another_user(hall: Hall) -> None:
    for tenant in ("acme", "acme", "globex"):
        hall.knock(tenant=tenant)
    assert len(hall.let_in) == OF_ONE + 1


async def test_all_together_have_a_bound_and_are_told_whose_it_is(hall: Hall) -> None:
    for user in ("u-1", "u-2", "u-3", "u-4"):
        hall.knock(user)
    assert len(hall.let_in) == OF_ALL
    assert await hall.heard(1) == [("_INBOX.acme.u-4.s-1.x", "overloaded.requests")]
    assert b"of all users" in hall.said[0][1]


async def test_an_answered_command_gives_its_place_back(hall: Hall) -> None:
    for _ in range(OF_ONE):
        hall.knock()
    await hall.answer()
    hall.knock()
    assert len(hall.let_in) == OF_ONE + 1
    assert hall.said == []


@pytest.mark.parametrize("foreign", ["_INBOX.acme.u-2.s-1.x", "_INBOX.acme.u-10.s-1.x", "remit.acme.u-2.live.x", ""])
async def test_a_refusal_never_goes_to_a_foreign_reply_and_is_told_on_the_senders_own_subject(
    hall: Hall, foreign: str
) -> None:
    for _ in range(OF_ONE):
        hall.knock()
    hall.knock(reply=foreign)
    ((where, code),) = await hall.heard(1)
    assert where == "remit.acme.u-1.live.refusal"
    assert code == ("request.foreign_reply" if foreign else "request.malformed_subject")


async def test_refusals_beyond_their_own_bound_are_counted_and_told_in_one_line(hall: Hall) -> None:
    with capture_logs() as logged:
        for _ in range(OF_ONE + REFUSALS + 40):
            hall.knock()
        for _ in range(OF_ONE + 2):
            hall.knock("u-2")  # still gets refusals of its own
        assert len(await hall.heard(REFUSALS + 3)) == REFUSALS + 3
        assert hall.counted("unanswered") == 40
        async with asyncio.timeout(10):
            while not logged:
                await asyncio.sleep(0.01)
    assert logged == [
        {
            "event": "requests.overloaded",
            "log_level": "warning",
            "tenant": "acme",
            "user": "u-1",
            "refused": REFUSALS + 40,
            "refused_of_all": REFUSALS + 43,
            "unanswered": 40,
        }
    ]


async def test_nothing_is_kept_of_a_user_whose_commands_are_answered_and_whose_second_is_over(hall: Hall) -> None:
    for number in range(200):
        hall.knock(f"u-{number}")
    assert len(hall.doorman) == 200
    await hall.answer()
    async with asyncio.timeout(10):
        while len(hall.doorman):
            await asyncio.sleep(0.01)


async def test_a_refusal_that_cannot_be_said_does_not_silence_the_next(hall: Hall) -> None:
    for _ in range(OF_ONE):
        hall.knock()
    hall.knock(reply="_INBOX.acme.u-1.s-1.away")
    hall.knock()
    assert await hall.heard(1) == [("_INBOX.acme.u-1.s-1.x", "overloaded.requests")]
