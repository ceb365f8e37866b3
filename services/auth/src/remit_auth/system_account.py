"""The connection on the bus's system account: servers tell who comes and goes, list who is there, and cut one off.

No other service has this account's key, and its permissions are these three requests and two events, which come by one
subscription.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog

from remit_auth.live_connections import LiveConnections, Place
from remit_auth.message_rates import Counted, Listed, MessageRates
from remit_chassis import direct
from remit_chassis.round_trip import taken_in
from remit_contracts import subjects
from remit_contracts.errors import Unavailable
from remit_contracts.identity import Caller, is_label

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from remit_auth.settings import AuthSettings

ANSWERS_WITHIN_SECONDS = 2.0
MOST_LISTED = 1_000_000
"""Connections in one answer. In pages, one that closes between two of them would hide another."""
_GONE = "no such client"


class SystemAccount:
    """Keeps LiveConnections right from `open` until `close`; `look_again` is set when the line has come back."""

    def __init__(
        self, settings: AuthSettings, live: LiveConnections, rates: MessageRates, look_again: asyncio.Event
    ) -> None:
        """`rates` hears what connections that end have said."""
        self._settings = settings
        self._live = live
        self._rates = rates
        self._look_again = look_again
        self._nc: Client | None = None
        self._surveying = asyncio.Lock()

    async def open(self) -> None:
        """Connect and listen; the connection comes back by itself when the server does."""
        import nats

        self._nc = await nats.connect(
            self._settings.nats_url,
            name="auth-system",
            nkeys_seed=str(self._settings.system_nkey_file),
            inbox_prefix=subjects.service_inbox("sys"),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,
            disconnected_cb=self._away,
            reconnected_cb=self._back,
            error_cb=self._fault,
            tls=self._settings.nats_tls(),
        )
        # One subscription for both, because a client that comes and goes at once must be heard in that order: between
        # two subscriptions none is kept, and a client heard to come after it went would be counted for half a minute.
        await direct.subscribe(self._nc, subjects.CLIENTS_COME_AND_GO, self._come_or_gone)
        await taken_in(self._nc)

    async def close(self) -> None:
        """Hear and ask no more."""
        if self._nc:
            await self._nc.close()

    async def survey(self) -> None:
        """Ask every bus server for its users' connections; raises Unavailable unless all of them answered."""
        async with self._surveying:
            began_at = self._live.begin_survey()
            found: dict[Place, Caller] = {}
            for listed in (await self.counts()).values():
                found |= {place: counted.caller for place, counted in listed.counted.items()}
            self._live.surveyed(began_at, found)

    async def counts(self) -> dict[str, Listed]:
        """By server's id, its users' connections and what each has said; raises Unavailable unless all answered."""
        return {server: await self._counted(server) for server in await self._servers()}

    async def _counted(self, server: str) -> Listed:
        asked = {"auth": True, "acc": subjects.USERS_ACCOUNT, "limit": MOST_LISTED}
        listed = (await self._ask(subjects.list_connections(server), asked)).get("data") or {}
        if listed.get("total", 0) > MOST_LISTED:
            raise Unavailable(f"the bus server {server} lists too few of its connections")
        if "now" not in listed:
            raise Unavailable(f"the bus server {server} does not list its connections")
        counted = {
            Place(server, row["cid"]): Counted(caller, row["in_msgs"])
            for row in listed.get("connections") or ()
            if (caller := caller_named(row.get("authorized_user")))
        }
        return Listed(datetime.fromisoformat(listed["now"]).timestamp(), counted)

    async def kick(self, place: Place) -> None:
        """Cut one connection off, and return once it is gone; raises Unavailable when that is not known."""
        answer = await self._ask(subjects.kick(place.server), {"cid": place.number})
        error = answer.get("error")
        if error and not str(error.get("description", "")).startswith(_GONE):
            raise Unavailable(f"the bus server cuts connection {place.number} not off: {error}")
        self._live.closed(place)

    async def _servers(self) -> set[str]:
        """Ids of the cluster's servers: the first to answer says how many there are."""
        nc = self._connected_client()
        inbox = nc.new_inbox()
        answers = await nc.subscribe(inbox)
        servers: set[str] = set()
        awaited = 1
        try:
            await nc.publish(subjects.BUS_SERVERS, b"", reply=inbox)
            async with asyncio.timeout(ANSWERS_WITHIN_SECONDS):
                while len(servers) < awaited:
                    told = json.loads((await answers.next_msg(timeout=ANSWERS_WITHIN_SECONDS)).data)
                    servers.add(told["server"]["id"])
                    awaited = max(awaited, told["statsz"]["active_servers"])
        except TimeoutError:  # nats-py's is one too
            raise Unavailable(f"of {awaited} bus servers {len(servers)} answer") from None
        finally:
            await answers.unsubscribe()
        return servers

    async def _ask(self, subject: str, asked: dict[str, Any]) -> dict[str, Any]:
        from nats import errors

        try:
            answer = await self._connected_client().request(
                subject, json.dumps(asked).encode(), timeout=ANSWERS_WITHIN_SECONDS
            )
        except (errors.Error, OSError, TimeoutError) as fault:
            raise Unavailable(f"a bus server does not answer {subject}: {fault or type(fault).__name__}") from None
        told: dict[str, Any] = json.loads(answer.data)
        return told

    def _connected_client(self) -> Client:
        if self._nc is None or not self._nc.is_connected:
            raise Unavailable("the bus's system account is away")
        return self._nc

    def _come_or_gone(self, message: Msg) -> None:
        told = json.loads(message.data)
        place = Place(told["server"]["id"], told["client"]["id"])
        if message.subject == subjects.CLIENT_DISCONNECTED:
            self._live.closed(place)
            if caller := caller_named(told["client"].get("user")):
                self._rates.ended(place, caller, told["sent"]["msgs"])
        elif message.subject == subjects.CLIENT_CONNECTED and (caller := caller_named(told["client"].get("user"))):
            self._live.opened(place, caller)

    async def _away(self) -> None:
        self._live.lost()
        self._rates.unknown()

    async def _back(self) -> None:
        self._look_again.set()

    async def _fault(self, fault: Exception) -> None:
        structlog.get_logger().warning("system_account.bus_error", error=str(fault)[:300])


def name_of(caller: Caller) -> str:
    """How a user's connection is called on the bus: `tenant/user/session`. The callout's claim says it, not the client.

    Whatever else a client presents beside its token (a name, a user, an nkey), servers tell this (nats-server 2.15.1).
    """
    return f"{caller.tenant}/{caller.user}/{caller.session}"


def caller_named(name: Any) -> Caller | None:
    """Whose connection it is; None for a service, which is called by its nkey."""
    parts = name.split("/") if isinstance(name, str) else []
    return Caller(*parts) if len(parts) == 3 and all(map(is_label, parts)) else None
