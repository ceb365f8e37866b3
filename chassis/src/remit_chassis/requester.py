"""Lean request and reply: one inbox subscription, a counter as token, one sweep for all deadlines.

The reply subject of a question to `policy` is `{inbox}.policy.{n}`: the server lets only policy publish there, and an
answer is taken only from there, so no other service can answer in its place.

nats-py's own request costs a `wait_for` a call; on the hot path this one takes its place (research: 5.6 us against
2.0).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from remit_chassis import direct
from remit_contracts.errors import Unavailable, refusal_from

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

SWEEP_SECONDS = 0.25
REFUSAL_PREFIX = b'{"error":'


class Requester:
    """Asks on one connection; answers are matched by id, so a cancelled question never hands its answer to another."""

    def __init__(self, nc: Client, inbox: str) -> None:
        self._nc = nc
        self._inbox = inbox
        self._waiting: dict[int, tuple[asyncio.Future[bytes], float, str]] = {}
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Subscribe to the inbox."""
        await direct.subscribe(self._nc, f"{self._inbox}.*.*", self._arrived)
        self._sweeper = self._loop.create_task(self._sweep())

    async def stop(self) -> None:
        """Fail what is still waiting."""
        if self._sweeper:
            self._sweeper.cancel()
        for number in list(self._waiting):
            self._fail(number, "the connection is closing")

    async def send(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, timeout_seconds: float = 5.0
    ) -> asyncio.Future[bytes]:
        """Publish the question and return the future of its raw answer; it fails with Unavailable."""
        self._count += 1
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[self._count] = (answer, self._loop.time() + timeout_seconds, subject)
        number = self._count
        try:
            await self._nc.publish(
                subject, payload, reply=f"{self._inbox}.{_answerer(subject)}.{number}", headers=headers
            )
        except BaseException:
            self._waiting.pop(number, None)
            raise
        return answer

    async def ask(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, timeout_seconds: float = 5.0
    ) -> bytes:
        """The raw answer; a refusal in it is raised as the exception that it stands for."""
        return checked(await (await self.send(subject, payload, headers=headers, timeout_seconds=timeout_seconds)))

    def _arrived(self, message: Msg) -> None:
        _, answerer, token = message.subject.rsplit(".", 2)
        number = int(token) if token.isdigit() else 0
        waiting = self._waiting.get(number)
        if waiting is None or answerer != _answerer(waiting[2]):
            return
        answer, _, subject = self._waiting.pop(number)
        if answer.done():
            return
        headers: Any = message.headers
        if headers and headers.get("Status") == "503" and not message.data:
            answer.set_exception(Unavailable(f"nobody answers {_verb(subject)}: is that service running?"))
        else:
            answer.set_result(message.data)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self._loop.time()
            for number in [number for number, (_, deadline, _) in self._waiting.items() if deadline < now]:
                self._fail(number, "no answer in time")

    def _fail(self, number: int, why: str) -> None:
        answer, _, subject = self._waiting.pop(number)
        if not answer.done():
            answer.set_exception(Unavailable(f"{_verb(subject)}: {why}"))
            answer.exception()  # retrieved here, so that an abandoned question logs nothing


def checked(answer: bytes) -> bytes:
    """`answer`, unless it is a refusal: that is raised."""
    if answer.startswith(REFUSAL_PREFIX):
        raise refusal_from(orjson.loads(answer))
    return answer


def _answerer(subject: str) -> str:
    return subject.split(".", 5)[4]


def _verb(subject: str) -> str:
    return ".".join(subject.split(".")[4:6]) or subject
