"""The auth service: constructs everything, then runs until told to stop."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from remit_auth import handlers
from remit_auth.application import Accounts
from remit_auth.callout import Callout
from remit_auth.callout_responder import CalloutResponder
from remit_auth.cutting import Cutting
from remit_auth.flood_watch import FloodWatch
from remit_auth.issuer import DevelopmentIssuer
from remit_auth.live_connections import LiveConnections
from remit_auth.message_rates import MessageRates
from remit_auth.projections import Directory
from remit_auth.refusal_log import RefusalLog
from remit_auth.settings import AuthSettings
from remit_auth.system_account import SystemAccount
from remit_auth.verifier import Verifier
from remit_chassis import readiness
from remit_chassis.nkeys import SignKey, XKey
from remit_chassis.round_trip import taken_in
from remit_chassis.service import Service
from remit_chassis.settings import read_hex_secret
from remit_contracts.directory import DirectoryNotice
from remit_contracts.errors import Refusal
from remit_contracts.identity import Caller
from remit_contracts.messages import encode

if TYPE_CHECKING:
    from remit_chassis.eventstore.store import EventStore


def main() -> None:
    """Entry point `auth` of the group `remit.services`; exits 1, saying why in one line, when it cannot be made."""
    try:
        service = build(AuthSettings())
    except ValueError as fault:
        readiness.announce_failure(f"auth: {fault}")
        sys.exit(f"auth: {fault}")
    service.run()


def build(settings: AuthSettings) -> Service:
    """The service, not yet started; raises BuiltInIssuerRefused, or ValueError for an unreadable key file."""
    issuer = DevelopmentIssuer(read_hex_secret(settings.issuer_key_file), oidc_issuer=settings.oidc_issuer)
    service = Service("auth", settings)

    def contradiction(tenant: str) -> str:
        return service.stores.contradiction(tenant)  # there are none before the service has started

    directory = Directory(contradiction)
    log = RefusalLog()
    live = LiveConnections(cap=settings.connections_per_user, monotonic=time.monotonic)
    rates = MessageRates(per_second=settings.messages_per_second, monotonic=time.monotonic)

    async def tell(caller: Caller, refusal: Refusal) -> None:
        await service.publish_live(caller.tenant, caller.user, ("refusal",), encode(refusal.as_dict()))
        await taken_in(service.nc)

    look_again = asyncio.Event()
    account = SystemAccount(settings, live, rates, look_again)
    cutting = Cutting(live, directory, account, tell, look_again)
    watch = FloodWatch(account, live, rates, cutting)
    callout = Callout(
        issuer=SignKey.read(settings.callout_issuer_file),
        xkey=XKey.read(settings.callout_xkey_file),
        verifier=Verifier(issuer.public_key),
        directory=directory,
        live=live,
        rates=rates,
        full=cutting.full,
        clock=service.clock,
        log=log,
    )

    responder = CalloutResponder(callout, settings, log, known=cutting.known)

    def store_of(tenant: str) -> EventStore:
        return service.stores.of(tenant)  # there are none before the service has started

    async def notify(tenant: str, user: str, revision: int) -> None:
        await service.publish_live(tenant, user, ("directory",), encode(DirectoryNotice(revision=revision)))

    accounts = Accounts(
        store_of=store_of,
        directory=directory,
        issuer=issuer,
        notify=notify,
        cut_off=cutting.cut,
        clock=service.clock,
    )
    handlers.register(service, accounts, directory)

    async def read_then_let_in() -> None:
        await accounts.rebuild(service.stores.tenants())
        await account.open()
        service.spawn(cutting.run())
        service.spawn(watch.run())
        await responder.open()

    async def begin() -> None:
        service.spawn(read_then_let_in())

    service.on_start(begin)
    service.on_stop(account.close)
    service.on_stop(responder.close)
    service.check("callout", responder.check)
    service.check("connections", cutting.check)
    return service
