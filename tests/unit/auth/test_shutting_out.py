"""Disabling a user, suspending a tenant, ending a session: whoever is shut out on disk is refused, cut off and told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import pytest
from unit.auth.installations import START, Installation, installation

from remit_auth.application import Accounts
from remit_auth.cutting import Cut
from remit_auth.domain import Session
from remit_auth.projections import NotAdmitted
from remit_contracts.directory import ConnectionsCut, SessionEnded, TenantActivitySet, UserActivitySet
from remit_contracts.errors import Conflict, Unavailable

ShutOut = Callable[[Accounts, str], Awaitable[ConnectionsCut]]
"""Shuts out ann of acme, whose open session is named."""


async def test_what_could_not_be_cut_off_is_said_and_tried_again_when_disabled_again(at: Installation) -> None:
    asked: list[str] = []

    async def cut_off(tenant: str) -> Cut:
        asked.append(tenant)
        return Cut(2, 1) if len(asked) == 1 else Cut(1, 0)

    at.cut_off = cut_off
    first = await at.accounts.set_user_active(tenant="acme", handle="ann", active=False, reason=None)
    second = await at.accounts.set_user_active(tenant="acme", handle="ann", active=False, reason=None)
    assert [(told.connections_cut, told.connections_left) for told in (first, second)] == [(2, 1), (1, 0)]
    await at.accounts.set_user_active(tenant="acme", handle="ann", active=True, reason=None)
    assert asked == ["acme", "acme"]


async def suspend(accounts: Accounts, _session: str) -> TenantActivitySet:
    return await accounts.set_tenant_active(tenant="acme", active=False, reason=None)


async def disable(accounts: Accounts, _session: str) -> UserActivitySet:
    return await accounts.set_user_active(tenant="acme", handle="ann", active=False, reason=None)


async def end(accounts: Accounts, session: str) -> SessionEnded:
    return await accounts.end_session(tenant="acme", session_id=session, reason="stolen")


SHUT_OUT = pytest.mark.parametrize("shut_out", [suspend, disable, end])


@SHUT_OUT
@pytest.mark.parametrize("cut", [Cut(3, 0), Cut(2, 1), Cut(0, None)])
async def test_shutting_out_answers_how_many_connections_were_cut_and_are_left(
    at: Installation, shut_out: ShutOut, cut: Cut
) -> None:
    async def cut_off(_tenant: str) -> Cut:
        return cut

    at.cut_off = cut_off
    issued = await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    told = await shut_out(at.accounts, issued.session)
    assert (told.connections_cut, told.connections_left) == cut


async def test_resuming_a_tenant_cuts_nobody_off(at: Installation) -> None:
    async def cut_off(tenant: str) -> Cut:
        raise AssertionError(tenant)

    at.cut_off = cut_off
    told = await at.accounts.set_tenant_active(tenant="acme", active=True, reason=None)
    assert (told.connections_cut, told.connections_left) == (0, 0)


@SHUT_OUT
async def test_whoever_is_shut_out_is_cut_off_although_others_could_not_be_told(
    at: Installation, shut_out: ShutOut
) -> None:
    issued = await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    caller = at.verifier.verify(issued.token, at=at.now).caller
    refused: list[str] = []

    async def cut_off(_tenant: str) -> Cut:
        with pytest.raises(NotAdmitted) as why:
            at.directory.admit(caller)
        refused.append(why.value.reason)
        return Cut(1, 0)

    at.cut_off, at.bus_is_away = cut_off, True
    with pytest.raises(Unavailable, match="the bus is away"):
        await shut_out(at.accounts, issued.session)
    assert len(refused) == 1


async def test_who_is_disabled_on_disk_is_cut_off_and_told_although_a_sessions_end_was_not_saved(
    tmp_path: Path,
) -> None:
    """A rival's end of the session reaches the store between this one's load and its save, which is a conflict."""
    between: list[Callable[[], object]] = []

    def clock() -> datetime:
        if between:
            between.pop()()
        return START

    async with installation(tmp_path, clock=clock) as at:
        await at.acme()
        issued = await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
        caller = at.verifier.verify(issued.token, at=START).caller
        store = at.store_of("acme")
        rival = await store.load(Session, Session.id_of("acme", issued.session))
        rival.end(reason="a rival's", at=START)
        asked: list[str] = []

        async def cut_off(tenant: str) -> Cut:
            asked.append(tenant)
            return Cut(1, 0)

        at.cut_off, at.notices = cut_off, []
        # The clock is looked at for the user's disabling, and then for the session's end, which is loaded by then.
        between += [lambda: store.save_later(rival, user=caller.user), lambda: None]
        with pytest.raises(Conflict):
            await disable(at.accounts, issued.session)
        assert asked == ["acme"]
        assert [(tenant, user) for tenant, user, _ in at.notices] == [("acme", caller.user)]
        with pytest.raises(NotAdmitted, match="disabled"):
            at.directory.admit(caller)
