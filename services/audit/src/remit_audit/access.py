"""Whose trail somebody may read: their own always, another's by a decision. Absent and forbidden answer alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from remit_chassis.deciding import decide_with
from remit_chassis.sessions import require_session
from remit_contracts.directory import USER_ID_PREFIX, UserRow
from remit_contracts.errors import Absent, Denied, MalformedCommand, MalformedIdentifier
from remit_contracts.identity import SYSTEM_USER, Caller, Handle, is_label

if TYPE_CHECKING:
    from remit_chassis.service import Service

ABSENT = "there is no such trail, or it is not yours to read"


class Admitted(NamedTuple):
    """Whose trail, and the decision behind it: empty for one's own."""

    user: str
    decision: dict[str, Any]


async def admit(service: Service, caller: Caller, of: str | None) -> Admitted:
    """Whose trail the caller gets to see. `of` is a user id or a handle of the caller's tenant.

    Raises Absent when there is no such user and when policy denies (and records it), Unavailable when nobody decides,
    and NotSignedIn("auth.session_ended") for a session that is none of the caller's: a reading is recorded under it.
    """
    of = caller.user if of is None else of
    user = of if of == caller.user else await _user_id(service, caller.tenant, of)
    if user == caller.user:
        await require_session(service.ask, caller)
        return Admitted(user, {})
    decision = await _decide(service, caller, user or of)
    if user is None:
        raise Absent(ABSENT)
    return Admitted(user, decision)


async def _user_id(service: Service, tenant: str, of: str) -> str | None:
    name = of
    if "/" in of:
        try:
            handle = Handle.parse(of)
        except MalformedIdentifier:
            return None
        if handle.tenant != tenant:
            return None
        name = handle.handle
    if not is_label(name):
        return None
    if name.startswith(USER_ID_PREFIX) or name == SYSTEM_USER:
        return name
    try:
        answer = await service.ask(tenant, SYSTEM_USER, "auth", "resolve", {"handle": name})
    except (Absent, MalformedCommand):
        return None
    return UserRow.from_bytes(answer).user


async def _decide(service: Service, caller: Caller, of: str) -> dict[str, Any]:
    try:
        decision = await decide_with(service, caller, "trail.read", "trail", of)
    except Denied:
        raise Absent(ABSENT) from None
    if duties := decision["obligations"]:
        kinds = ", ".join(sorted({str(duty["type"]) for duty in duties}))
        raise Denied(f"a trail cannot be shown under the obligations {kinds}", code="policy.unknown_obligation")
    return decision
