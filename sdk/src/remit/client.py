"""The asynchronous client: one connection, one user's session.

PermissionViolation          the bus server refused the subject
Denied, Absent, Overloaded   (and every other Refusal) a service refused, with a code and a reason
Unavailable                  nobody answered in time, or the connection was lost and did not come back in time

A lost connection is made again for as long as the client is open. What is asked meanwhile waits for it, up to its own
timeout, and is never sent later than that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import orjson

from remit.round_trip import taken_in
from remit.session import Session
from remit.violations import PermissionViolation, Violations
from remit_contracts import subjects
from remit_contracts.errors import (
    MalformedCommand,
    MalformedSubject,
    NotSignedIn,
    PayloadTooLarge,
    Unavailable,
    refusal_from,
)

if TYPE_CHECKING:
    from nats.aio.client import Client as Nats
    from nats.aio.client import Server
    from nats.aio.subscription import Subscription

__all__ = ["Client", "PermissionViolation", "connect"]

ENDED = frozenset({"completed", "failed", "cancelled"})
DEFAULT_TIMEOUT_SECONDS = 10.0
FIRST_ATTEMPTS = 5
"""How often a first connection is tried, a second apart."""
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0
PAGE = 200
"""Entries of a trail asked for at once."""


def connect(url: str, *, token: str, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> Client:
    """A client for `async with`. `url` is `nats://HOST:PORT`, `token` a session token; raises NotSignedIn for
    another text, and MalformedCommand for another `url`.

    `timeout_seconds` bounds each single request, not a whole run.
    """
    if not isinstance(url, str) or not url.strip():
        raise MalformedCommand(f"{url!r:.120} is no address of a bus: nats://HOST:PORT")
    return Client(url, token=token, timeout_seconds=timeout_seconds)


class Client:
    """A user's connection. Use `connect`."""

    def __init__(self, url: str, *, token: str, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.session = Session.of_token(token)
        self._url = url
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._violations = Violations()
        self._nats: Nats | None = None
        self._dialled: Nats | None = None
        self._back = asyncio.Event()

    async def __aenter__(self) -> Self:
        from nats import errors
        from nats.aio.client import Client as Nats

        nc = self._dialled = Nats()
        try:
            await nc.connect(
                self._url,
                token=self._token,
                inbox_prefix=subjects.user_inbox(self.session.caller),
                error_cb=self._heard,
                reconnected_cb=self._let_in_again,
                reconnect_to_server_handler=_next_attempt,
                max_reconnect_attempts=FIRST_ATTEMPTS,
                reconnect_time_wait=1,
                connect_timeout=10,  # the bus itself waits 2 s for the auth service
                allow_reconnect=True,
            )
            nc.options["max_reconnect_attempts"] = -1  # only now: the first connection would never be given up either
            self._nats = nc
        except (errors.AuthorizationError, errors.Error) as refused:
            text = str(refused).lower()
            if self._violations.shut_out or "authorization" in text or "authentication" in text:
                raise NotSignedIn(
                    "the bus refuses this token: it is expired, ended or not for this platform, your user is disabled, "
                    "or too many of your connections are live"
                ) from None
            raise Unavailable(f"no bus at {self._url}: {refused}") from None
        except OSError as fault:
            raise Unavailable(f"no bus at {self._url}: {fault}") from None
        finally:
            if self._nats is None:
                await _close(nc)  # the library leaves the socket of a refused connection open
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nats:
            await _close(self._nats)

    @property
    def nats(self) -> Nats:
        """The connection itself, for what this class does not offer."""
        if self._nats is None:
            raise Unavailable("not connected: use `async with remit.connect(...)`")
        return self._nats

    # -- any subject -----------------------------------------------------------------------------------------------

    async def request(self, subject: str, payload: bytes, *, timeout_seconds: float | None = None) -> bytes:
        """Ask on a subject; raises PermissionViolation, a Refusal of the service, or Unavailable.

        Before anything is sent: MalformedSubject, and PayloadTooLarge for more than the bus takes.
        """
        from nats import errors

        _require(subjects.is_concrete(subject), subject)
        left = await self._linked(timeout_seconds or self._timeout_seconds)
        self._require_room(payload)
        with self._violations.watching(subject) as refused:
            asking = asyncio.ensure_future(self.nats.request(subject, payload, timeout=left))
            try:
                both: list[asyncio.Future[Any]] = [asking, refused]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if refused.done():
                    refused.result()
                answer = (await asking).data
            except errors.NoRespondersError:
                raise Unavailable(f"nobody answers {subject}: the service is down, or has no such verb") from None
            except errors.TimeoutError:
                self._require_admission()
                raise Unavailable(f"{subject} was not answered in time") from None
            except (errors.Error, OSError) as fault:
                self._require_admission()
                raise _lost(fault) from None
            finally:
                if not asking.cancel() and not asking.cancelled():  # nobody waits for that answer any more
                    asking.exception()
        body = orjson.loads(answer)
        if (
            isinstance(body, dict)
            and isinstance(body.get("error"), dict)
            and "code" in body["error"]
            and len(body) == 1
        ):
            raise refusal_from(body)
        return answer

    async def _heard(self, fault: Exception) -> None:
        await self._violations.heard(fault)
        nc = self._dialled
        if self._violations.shut_out and nc and not nc.is_connected and nc._transport:
            nc._transport.close()  # type: ignore[no-untyped-call]  # the library leaves each refused attempt's open

    async def _let_in_again(self) -> None:
        self._violations.shut_out = False
        self._back.set()

    async def _linked(self, within_seconds: float) -> float:
        """Wait for the connection; the seconds that are left then. Raises NotSignedIn or Unavailable without one."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + within_seconds
        while not self.nats.is_connected:
            self._back.clear()
            try:
                async with asyncio.timeout_at(deadline if not self.nats.is_closed else clock()):
                    await self._back.wait()
            except TimeoutError:
                self._require_admission()
                raise Unavailable(
                    "the connection to the bus is lost, and was not made again in time: try again",
                    retry_after_seconds=LONGEST_PAUSE_SECONDS,
                ) from None
        return max(deadline - clock(), 0.001)

    def _require_admission(self) -> None:
        """Raises NotSignedIn when the connection is lost because the bus lets this session in no more."""
        if self._violations.shut_out and not self.nats.is_connected:
            raise NotSignedIn(
                "the bus lets this session in no more: it has ended, your user is disabled, or too many of your "
                "connections are live"
            )

    async def subscribe(self, subject: str) -> Subscription:
        """Listen on a subject, with wildcards perhaps; raises PermissionViolation when the server refuses it,
        MalformedSubject, or Unavailable."""
        _require(subjects.is_filter(subject), subject)
        await self._linked(self._timeout_seconds)
        with self._violations.watching(subject) as refused:
            with _in_our_words():
                subscription = await self.nats.subscribe(subject)
            try:
                await self._settled(refused)
            except BaseException:  # refused, cut off or cancelled: what nobody reads would gather for ever
                await _unsubscribe(subscription)
                raise
        return subscription

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Publish without an answer; raises PermissionViolation when the server refuses the subject, MalformedSubject
        and PayloadTooLarge before anything is sent, or Unavailable."""
        _require(subjects.is_concrete(subject), subject)
        _require(not reply or subjects.is_concrete(reply), reply)
        await self._linked(self._timeout_seconds)
        self._require_room(payload)
        with self._violations.watching(subject) as refused:
            with _in_our_words():
                await self.nats.publish(subject, payload, reply=reply)
            await self._settled(refused)

    async def _settled(self, refused: asyncio.Future[None]) -> None:
        """Wait until the server's refusal of what was said, if any, has been heard, and raise that."""
        await taken_in(self.nats, within_seconds=self._timeout_seconds)
        if refused.done():
            refused.result()

    def _require_room(self, payload: bytes) -> None:
        """Raises PayloadTooLarge for more than the bus takes in one message."""
        if len(payload) > self.nats.max_payload:
            raise PayloadTooLarge(
                f"the payload has {len(payload)} bytes and the bus takes {self.nats.max_payload} in one message"
            )

    async def command(
        self, service: str, verb: str, payload: dict[str, Any] | None = None, *, timeout_seconds: float | None = None
    ) -> dict[str, Any]:
        """Send a command as this user and give the answer's JSON object.

        Raises MalformedIdentifier for a service or verb that is none, MalformedCommand for what JSON cannot say, and
        all that `request` raises.
        """
        caller = self.session.caller
        try:
            asked = orjson.dumps(payload or {})
        except TypeError as fault:  # a whole number of more than 64 bits, too
            raise MalformedCommand(f"{service}.{verb} cannot be said in JSON: {fault}") from None
        answer = await self.request(
            subjects.command(caller.tenant, caller.user, service, verb),
            asked,
            timeout_seconds=timeout_seconds,
        )
        body: dict[str, Any] = orjson.loads(answer)
        return body

    # -- what people do --------------------------------------------------------------------------------------------

    async def whoami(self) -> dict[str, Any]:
        """`{"tenant", "user", "session", "roles", "inbox_prefix", "command_prefix", "handle"}`."""
        return await self.command("auth", "whoami")

    async def start(
        self, agent: str, prompt: str, *, session: str | None = None, idempotency_key: str | None = None
    ) -> str:
        """Start a run and give its id as soon as its acceptance is durable. Raises Denied, Absent, Overloaded."""
        asked = {"agent": agent, "prompt": prompt, "session": session, "idempotency_key": idempotency_key}
        started = await self.command(
            "agent-runtime", "start-run", {key: value for key, value in asked.items() if value is not None}
        )
        return str(started["run_id"])

    async def run(
        self, agent: str, prompt: str, *, timeout_seconds: float = 300.0, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Start a run, wait for its end, give it as `show` does. Raises Unavailable after `timeout_seconds`."""
        last: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout_seconds):
                async for message in self.stream(agent, prompt, idempotency_key=idempotency_key):
                    last = message
        except TimeoutError:
            raise not_ended(last.get("run_id"), timeout_seconds) from None
        return await self.show(str(last["run_id"]))

    async def stream(
        self, agent: str, prompt: str, *, idempotency_key: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Progress of a new run, message by message, each with `run_id`, `seq` and `type`; ends with the run.

        Progress is never stored, so after a silence of two seconds the run itself is asked whether it has ended.
        """
        caller = self.session.caller
        subscription = await self.subscribe(f"{subjects.live(caller.tenant, caller.user, 'run')}.*")
        try:
            run_id = await self.start(agent, prompt, idempotency_key=idempotency_key)
            yield {"run_id": run_id, "seq": 0, "type": "status", "status": "accepted"}
            subject = subjects.live_run(caller.tenant, caller.user, run_id)
            while True:
                message = await _next(subscription, subject, seconds=2.0)
                if message is None:
                    view = await self.show(run_id)
                    if view["status"] not in ENDED:
                        continue
                    message = {"run_id": run_id, "type": "end", "status": view["status"]}
                yield message
                if message.get("type") == "end":
                    return
        finally:
            await _unsubscribe(subscription)

    async def show(self, run_id: str) -> dict[str, Any]:
        """One run: status, answer, error, usage, steps."""
        return await self.command("agent-runtime", "show-run", {"run_id": run_id})

    async def cancel(self, run_id: str) -> dict[str, Any]:
        """End a run that has not ended."""
        return await self.command("agent-runtime", "cancel-run", {"run_id": run_id})

    async def runs(self, *, limit: int = 100) -> list[dict[str, Any]]:
        """One's own runs, newest first, each with `run_id` and `status`: up to `limit` of them (at most 500)."""
        return list((await self.command("agent-runtime", "list-runs", {"limit": limit}))["runs"])

    async def trail(
        self, *, after: int | None = None, limit: int | None = None, of: str | None = None
    ) -> dict[str, Any]:
        """A page of one's own trail or, where policy allows, another's: `{"entries": [...], "next": int | None}`."""
        asked = {"after": after, "limit": limit, "of": of}
        return await self.command(
            "audit", "show-trail", {key: value for key, value in asked.items() if value is not None}
        )

    async def entries(self, *, after: int | None = None, of: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """Every entry of a trail, page by page, from behind index `after`."""
        while True:
            page = await self.trail(after=after, limit=PAGE, of=of)
            for entry in page["entries"]:
                yield entry
            after = page.get("next")
            if after is None:
                return


def not_ended(run_id: str | None, seconds: float) -> Unavailable:
    """For a run that was waited for in vain; without an id nobody knows whether it was accepted."""
    if run_id is None:
        return Unavailable(
            f"the run was not accepted within {seconds:g} s, and perhaps never started: `remit runs list` shows it if "
            "it did"
        )
    return Unavailable(f"run {run_id} has not ended after {seconds:g} s; it goes on: `remit runs show {run_id}`")


def _next_attempt(servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
    """The server that was tried least, after a pause: longer after each attempt, and never the same for all clients."""
    server = min(servers, key=lambda server: server.reconnects)
    pause = min(FIRST_PAUSE_SECONDS * 2 ** min(server.reconnects, 16), LONGEST_PAUSE_SECONDS)
    return server, pause * random.uniform(0.5, 1)  # noqa: S311 - a spread, no secret


async def _close(nc: Nats) -> None:
    """Close, also what the library leaves open when its last flush meets a dead socket, or when closing is cancelled:
    its tasks, and the socket. It counts as closed by then, so that closing again would do nothing."""
    try:
        await nc.close()
    except BaseException as fault:
        for subscription in nc._subs.values():
            if subscription._wait_for_msgs_task:
                subscription._wait_for_msgs_task.cancel()
        if nc._transport:
            nc._transport.close()  # type: ignore[no-untyped-call]  # of the library
        if not isinstance(fault, OSError):
            raise


async def _unsubscribe(subscription: Subscription) -> None:
    """Listen no more; nothing is left to do when the connection has gone meanwhile."""
    from nats import errors

    with suppress(errors.Error, OSError):
        await subscription.unsubscribe()


def _require(well_formed: bool, subject: str) -> None:
    """Raises MalformedSubject: the library would refuse some of these without a word, and send others."""
    if not well_formed:
        raise MalformedSubject(f"{subject!r:.120} is no subject: tokens of printable ASCII with a dot between them")


def _lost(fault: Exception) -> Unavailable:
    return Unavailable(f"the connection to the bus is lost: {fault or type(fault).__name__}")


@contextmanager
def _in_our_words() -> Iterator[None]:
    from nats import errors

    try:
        yield
    except (errors.Error, OSError) as fault:
        raise _lost(fault) from None


async def _next(subscription: Subscription, subject: str, *, seconds: float) -> dict[str, Any] | None:
    from nats import errors

    deadline = asyncio.get_running_loop().time() + seconds
    while (left := deadline - asyncio.get_running_loop().time()) > 0:
        try:
            message = await subscription.next_msg(timeout=left)
        except errors.TimeoutError:
            return None
        if message.subject == subject:
            body: dict[str, Any] = orjson.loads(message.data)
            return body
    return None
