"""The directory's use cases, on real event stores."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from unit.auth.installations import START, Installation, installation

from remit_auth.application import HandleTaken, Inactive, TenantExists
from remit_auth.domain import Session, Tenant, User
from remit_auth.projections import NotAdmitted, TenantDirectory
from remit_auth.roles import RoleCycle, UnknownRole
from remit_contracts.directory import Permission, RowFilter
from remit_contracts.errors import Absent, Tampered, Unavailable
from remit_contracts.identity import Caller


def comparable(directory: TenantDirectory) -> dict[str, object]:
    return {name: value for name, value in vars(directory).items() if name != "known"}


async def test_a_registered_user_is_found_by_handle_and_by_id(at: Installation) -> None:
    acme = at.directory.of("acme")
    member = acme.find("ann")
    assert acme.find(member.user) is member
    assert (member.user[:2], member.roles, member.active) == ("u-", {"analyst"}, True)


async def test_a_handle_is_unique_in_its_tenant_and_free_in_others(at: Installation) -> None:
    with pytest.raises(HandleTaken, match="acme/ann"):
        await at.accounts.register_user(tenant="acme", handle="ann", email=None, name=None, roles=[])
    await at.accounts.create_tenant(tenant="globex", name=None)
    other = await at.accounts.register_user(tenant="globex", handle="ann", email=None, name=None, roles=[])
    assert other.user != at.directory.of("acme").find("ann").user


async def test_of_registrations_at_the_same_moment_one_gets_the_handle(at: Installation) -> None:
    outcomes = await asyncio.gather(
        *(at.accounts.register_user(tenant="acme", handle="bob", email=None, name=None, roles=[]) for _ in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, HandleTaken) for outcome in outcomes) == 7
    assert [member.handle for member in at.directory.of("acme").page(None, 10)] == ["ann", "bob"]


async def test_a_disabled_users_handle_stays_taken(at: Installation) -> None:
    await at.accounts.set_user_active(tenant="acme", handle="ann", active=False, reason="left")
    with pytest.raises(HandleTaken):
        await at.accounts.register_user(tenant="acme", handle="ann", email=None, name=None, roles=[])


async def test_a_registration_with_an_undefined_role_leaves_nothing_behind(at: Installation) -> None:
    before = at.store_of("acme").head()
    with pytest.raises(UnknownRole):
        await at.accounts.register_user(tenant="acme", handle="bob", email=None, name=None, roles=["reader", "king"])
    assert at.store_of("acme").head() == before
    assert not at.directory.of("acme").has_handle("bob")


async def test_a_tenant_is_created_once_for_ever(at: Installation) -> None:
    with pytest.raises(TenantExists):
        await at.accounts.create_tenant(tenant="acme", name=None)
    await at.accounts.set_tenant_active(tenant="acme", active=False, reason="closed")
    with pytest.raises(TenantExists):
        await at.accounts.create_tenant(tenant="acme", name=None)


async def test_nothing_can_be_asked_or_changed_in_a_tenant_that_was_never_created(at: Installation) -> None:
    with pytest.raises(Absent):
        await at.accounts.register_user(tenant="initech", handle="bob", email=None, name=None, roles=[])
    with pytest.raises(Absent):
        await at.accounts.issue_token(tenant="initech", handle="bob", ttl_seconds=60)
    with pytest.raises(Absent):
        at.directory.of("initech")


async def test_every_change_is_told_with_its_revision_and_an_unchanged_state_is_not(at: Installation) -> None:
    user = at.directory.of("acme").find("ann").user
    await at.accounts.assign_role(tenant="acme", handle="ann", role="administrator")
    await at.accounts.assign_role(tenant="acme", handle="ann", role="administrator")
    revision = await at.accounts.define_role(tenant="acme", name="guest", inherits=[], permissions=[])
    assert at.notices == [("acme", user, revision - 1), ("acme", "system", revision)]
    assert at.directory.of("acme").revision == revision == at.store_of("acme").head().notification_id


async def test_opening_a_session_is_recorded_and_does_not_change_the_revision(at: Installation) -> None:
    revision = at.directory.of("acme").revision
    issued = await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    assert at.directory.of("acme").revision == revision
    assert at.store_of("acme").head().notification_id == revision + 1
    [opened] = await at.store_of("acme").read(revision + 1, 10)
    assert opened.topic == "auth.Session.Opened"
    assert opened.user == at.directory.of("acme").find("ann").user
    credential = at.verifier.verify(issued.token, at=at.now)
    assert credential.caller == Caller("acme", opened.user, issued.session)
    assert credential.expires_at == issued.expires_at.timestamp()
    assert issued.expires_at <= at.now + timedelta(seconds=60)


async def test_no_token_for_a_disabled_user_or_a_suspended_tenant(at: Installation) -> None:
    await at.accounts.set_user_active(tenant="acme", handle="ann", active=False, reason=None)
    with pytest.raises(Inactive):
        await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    await at.accounts.set_user_active(tenant="acme", handle="ann", active=True, reason=None)
    await at.accounts.set_tenant_active(tenant="acme", active=False, reason=None)
    with pytest.raises(Inactive):
        await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)


async def test_whoever_is_admitted_is_refused_after_each_kind_of_revocation(at: Installation) -> None:
    issued = await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    caller = at.verifier.verify(issued.token, at=at.now).caller
    assert at.directory.admit(caller).handle == "ann"

    await at.accounts.set_user_active(tenant="acme", handle="ann", active=False, reason=None)
    with pytest.raises(NotAdmitted, match="disabled"):
        at.directory.admit(caller)
    await at.accounts.set_user_active(tenant="acme", handle="ann", active=True, reason=None)
    with pytest.raises(NotAdmitted, match="ended"):
        at.directory.admit(caller)
    issued = await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    caller = at.verifier.verify(issued.token, at=at.now).caller
    await at.accounts.set_tenant_active(tenant="acme", active=False, reason=None)
    with pytest.raises(NotAdmitted, match="suspended"):
        at.directory.admit(caller)
    await at.accounts.set_tenant_active(tenant="acme", active=True, reason=None)
    assert at.directory.admit(caller).handle == "ann"
    await at.accounts.end_session(tenant="acme", session_id=issued.session, reason="stolen")
    with pytest.raises(NotAdmitted, match="ended"):
        at.directory.admit(caller)
    with pytest.raises(Absent):
        await at.accounts.end_session(tenant="acme", session_id=issued.session, reason="stolen")


async def test_disabling_records_the_end_of_every_session_and_of_nobody_elses(at: Installation) -> None:
    await at.accounts.register_user(tenant="acme", handle="bob", email=None, name=None, roles=[])
    bobs = await at.accounts.issue_token(tenant="acme", handle="bob", ttl_seconds=60)
    anns = [await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60) for _ in range(3)]
    before = at.store_of("acme").head().notification_id
    told = await at.accounts.set_user_active(tenant="acme", handle="ann", active=False, reason="left")
    assert told.sessions_ended == 3
    store = at.store_of("acme")
    disabled, *ends = await store.read(before + 1, 10)
    assert disabled.topic == "auth.User.Disabled"
    assert [end.topic for end in ends] == ["auth.Session.Ended"] * 3
    decoded = [await store.decode(end) for end in ends]
    assert {end.session_id for end in decoded} == {issued.session for issued in anns}
    assert set(at.directory.of("acme").sessions) == {bobs.session}
    again = await at.accounts.set_user_active(tenant="acme", handle="ann", active=False, reason="left")
    assert (again.sessions_ended, store.head().notification_id) == (0, before + 4)


async def test_a_session_whose_end_was_not_recorded_ends_with_its_users_disabling(at: Installation) -> None:
    issued = await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    caller = at.verifier.verify(issued.token, at=at.now).caller
    store = at.store_of("acme")
    ann = await store.load(User, User.id_of("acme", caller.user))
    ann.disable(reason=None, at=at.now)
    ann.enable(reason=None, at=at.now)
    await store.save(ann, user=caller.user)
    await at.accounts.catch_up("acme")
    with pytest.raises(NotAdmitted, match="ended"):
        at.directory.admit(caller)


async def test_a_session_that_was_opened_while_its_user_was_disabled_never_stands(at: Installation) -> None:
    user = at.directory.of("acme").find("ann").user
    await at.accounts.set_user_active(tenant="acme", handle="ann", active=False, reason=None)
    raced = Session.open(
        tenant_id="acme", session_id="s-raced", user_id=user, ttl_seconds=60, issuer="remit-dev", at=at.now
    )
    await at.store_of("acme").save(raced, user=user)
    await at.accounts.set_user_active(tenant="acme", handle="ann", active=True, reason=None)
    with pytest.raises(NotAdmitted, match="ended"):
        at.directory.admit(Caller("acme", user, "s-raced"))


async def test_a_session_lets_in_its_own_user_only(at: Installation) -> None:
    await at.accounts.register_user(tenant="acme", handle="bob", email=None, name=None, roles=[])
    issued = await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    bob = at.directory.of("acme").find("bob").user
    with pytest.raises(NotAdmitted, match="never this user's"):
        at.directory.admit(Caller("acme", bob, issued.session))


async def test_permissions_are_stored_and_told_as_they_were_given(at: Installation) -> None:
    allowed = Permission(
        action="tool.call",
        type="tool",
        id="sql",
        max_rows=100,
        row_filter=RowFilter(column="origin", op="in", values=("SFO", 7)),
    )
    await at.accounts.define_role(tenant="acme", name="analyst", inherits=["reader"], permissions=[allowed])
    acme = at.directory.of("acme")
    assert acme.definitions_as_told()["analyst"].permissions == (allowed,)
    assert acme.holders() == {"reader": 0, "analyst": 1, "administrator": 0}


async def test_a_tenant_that_cannot_be_read_is_not_used_and_holds_up_no_other(tmp_path: Path) -> None:
    async with installation(tmp_path) as before:
        await before.acme()
        await before.accounts.create_tenant(tenant="globex", name=None)
    with sqlite3.connect(tmp_path / "vault.sqlite") as vault:
        vault.execute("UPDATE user_keys SET sealed = X'00' WHERE tenant = 'acme' AND user_id <> 'system'")
    vault.close()
    async with installation(tmp_path) as after:
        directory, accounts = after.restarted()
        await accounts.rebuild(["acme", "globex"])
        assert directory.of("globex").known
        assert after.store_of("acme").contradiction
        assert not after.store_of("globex").contradiction
        with pytest.raises(Tampered):
            await after.store_of("acme").save(Tenant.create(tenant_id="acme", name=None, at=START), user="system")


async def test_a_cycle_over_recorded_roles_is_refused(at: Installation) -> None:
    with pytest.raises(RoleCycle):
        await at.accounts.define_role(tenant="acme", name="reader", inherits=["administrator"], permissions=[])


async def test_the_directory_rebuilt_from_event_one_equals_the_one_that_lived(at: Installation) -> None:
    await at.accounts.register_user(tenant="acme", handle="bob", email=None, name=None, roles=["reader"])
    await at.accounts.remove_role(tenant="acme", handle="ann", role="analyst")
    await at.accounts.protect_fields(tenant="acme", source="sql", fields=["tailnum"])
    await at.accounts.set_user_active(tenant="acme", handle="bob", active=False, reason="left")
    kept = await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=3600)
    ended = await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=3600)
    await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=1)
    await at.accounts.end_session(tenant="acme", session_id=ended.session, reason="done")
    at.pass_time(2)
    last = await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=5)

    directory, accounts = at.restarted()
    with pytest.raises(Unavailable):
        directory.of("acme")
    await accounts.rebuild(["acme"])
    assert comparable(directory.of("acme")) == comparable(at.directory.of("acme"))
    assert set(directory.of("acme").sessions) == {kept.session, last.session}


async def test_an_erased_user_is_gone_and_the_others_stay(at: Installation, tmp_path: Path) -> None:
    await at.accounts.register_user(tenant="acme", handle="bob", email=None, name=None, roles=["reader"])
    ann = at.directory.of("acme").find("ann").user
    at.vault.destroy_user_key("acme", ann)
    await at.close()
    async with installation(tmp_path) as later:
        await later.accounts.catch_up("acme")
        acme = later.directory.of("acme")
        assert [member.handle for member in acme.page(None, 10)] == ["bob"]
        with pytest.raises(Absent):
            acme.member(ann)
        assert acme.read_to == later.store_of("acme").head().notification_id


async def test_personal_attributes_are_stored_encrypted(at: Installation, tmp_path: Path) -> None:
    await at.accounts.issue_token(tenant="acme", handle="ann", ttl_seconds=60)
    await at.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("acme.sqlite*"))
    assert b"auth.User.Registered" in stored  # so this does read the store
    for secret in (b"ann@acme.test", b"Ann Example", b'"handle"'):
        assert secret not in stored


async def test_a_page_begins_after_the_handle_that_ended_the_last(at: Installation) -> None:
    for handle in ("zoe", "bob", "cid"):
        await at.accounts.register_user(tenant="acme", handle=handle, email=None, name=None, roles=[])
    acme = at.directory.of("acme")
    assert [member.handle for member in acme.page(None, 2)] == ["ann", "bob"]
    assert [member.handle for member in acme.page("bob", 2)] == ["cid", "zoe"]
    assert acme.page("zoe", 2) == []
