"""Which guard stands where, what its removal looks like, and the tests that must then fail.

`old` occurs exactly once in `file`; each of `red` (pytest node ids, without parameters) passes as the code stands and
must fail with `new` in the place of `old`. docs/testing.md shows this table; `test_guards.py` runs it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

CONTRACTS: Final = "contracts/src/remit_contracts"
CHASSIS: Final = "chassis/src/remit_chassis"
INFRA: Final = "infra/src/remit_infra"
AUTH: Final = "services/auth/src/remit_auth"
POLICY: Final = "services/policy/src/remit_policy"
BROKER: Final = "services/credential-broker/src/remit_credential_broker"
RUNTIME: Final = "services/agent-runtime/src/remit_agent_runtime"
AUDIT: Final = "services/audit/src/remit_audit"

REQUESTS: Final = "tests/integration/test_requests_under_attack.py"
RUNS: Final = "tests/integration/test_runs_under_attack.py"
ON_THE_BUS: Final = "tests/integration/test_runtime_on_the_bus.py"
SERVICE: Final = "tests/integration/test_service.py"
LIVE: Final = "tests/integration/test_auth_live_connections.py"
CALLOUT: Final = "tests/integration/test_auth_callout.py"
PERMISSIONS: Final = "tests/integration/test_bus_permissions.py"
AT_WORK: Final = "tests/integration/test_bus_permissions_at_work.py"
POLICY_SERVICE: Final = "tests/integration/test_policy_service.py"
BROKER_SERVICE: Final = "tests/integration/test_broker.py"
TOOL_HOST: Final = "tests/integration/test_toolhost_process.py"
TOOL_HTTP: Final = "tests/integration/test_toolhost_http.py"
TRAILS: Final = "tests/integration/test_audit_trails.py"
FORGERIES: Final = "tests/integration/test_relay_forgeries.py"
AGAINST_STREAM: Final = "tests/integration/test_store_against_stream.py"
CONSUMER: Final = "tests/integration/test_audit_consumer.py"
DIRECTORY: Final = "tests/unit/auth/test_application.py"
COUNTING: Final = "tests/unit/auth/test_live_connections.py"
RATES: Final = "tests/unit/auth/test_message_rates.py"
DOORMAN: Final = "tests/unit/chassis/test_doorman.py"
FLOOD: Final = "tests/platform/test_flood.py"
LEASING: Final = "tests/unit/credential_broker/test_leasing.py"
DECISIONS: Final = "tests/unit/policy/test_application.py"
GATE: Final = "tests/unit/agent_runtime/test_tool_gate.py"
PLACES: Final = "tests/unit/agent_runtime/test_places.py"
RUN_DOMAIN: Final = "tests/unit/agent_runtime/test_domain.py"
STORE: Final = "tests/unit/chassis_eventstore/test_store.py"
STORE_GROUPS: Final = "tests/unit/chassis_eventstore/test_store_groups.py"
STORE_DISK: Final = "tests/unit/chassis_eventstore/test_store_disk.py"
STORE_TAMPERING: Final = "tests/unit/chassis_eventstore/test_store_tampering.py"
LEDGER: Final = "tests/unit/audit/test_ledger.py"


class Mutation(NamedTuple):
    """One guard removed."""

    name: str
    invariant: int
    file: str
    old: str
    new: str
    red: tuple[str, ...]


IDENTITY = [
    Mutation(
        "a reply lies under one's own inbox, token by token",
        1,
        f"{CONTRACTS}/subjects.py",
        "or tokens[2] != user",
        "or not tokens[2].startswith(user)",
        (
            f"{REQUESTS}::test_no_reply_subject_but_ones_own_is_answered",
            f"{SERVICE}::test_an_answer_never_goes_to_a_foreign_reply_and_the_sender_is_told_on_their_own_subject",
        ),
    ),
    Mutation(
        "a reply lies in one's own tenant",
        1,
        f"{CONTRACTS}/subjects.py",
        "or tokens[1] != tenant",
        "",
        (f"{REQUESTS}::test_no_reply_subject_but_ones_own_is_answered",),
    ),
    Mutation(
        "a service is answered under a service's inbox only",
        1,
        f"{CHASSIS}/guard.py",
        "elif is_service_reply(reply):",
        "elif reply:",
        (f"{REQUESTS}::test_no_service_is_made_to_answer_into_a_users_inbox",),
    ),
    Mutation(
        "an identifier matches as a whole",
        1,
        f"{CONTRACTS}/identity.py",
        "DNS_LABEL.fullmatch(value)",
        "DNS_LABEL.match(value)",
        (
            f"{REQUESTS}::test_a_token_that_is_no_identifier_reaches_no_handler",
            "tests/unit/contracts/test_identity.py::test_what_is_no_dns_label_is_no_identifier",
        ),
    ),
    Mutation(
        "every token of a request's subject is an identifier",
        1,
        f"{CONTRACTS}/subjects.py",
        "if not all(map(is_label, tokens)):",
        "if not all(tokens):",
        (f"{REQUESTS}::test_a_token_that_is_no_identifier_reaches_no_handler",),
    ),
    Mutation(
        "a decision is about the user of its subject",
        1,
        f"{POLICY}/decisions.py",
        "if request.subject.id != caller.user:",
        "if not request.subject.id:",
        (f"{POLICY_SERVICE}::test_a_request_about_another_user_than_the_subjects_is_refused",),
    ),
    Mutation(
        "a role that a request claims is not believed",
        1,
        f"{POLICY}/decisions.py",
        '"properties": {"tenant": tenant, "roles": list(roles), "active": active},',
        '"properties": {"tenant": tenant, "roles": list(roles), "active": active, **request.subject.properties},',
        (f"{DECISIONS}::test_a_role_or_an_activity_that_the_request_claims_is_not_believed",),
    ),
    Mutation(
        "a payload that names another user is refused",
        1,
        f"{CONTRACTS}/messages.py",
        'extra="forbid"',
        'extra="ignore"',
        (f"{SERVICE}::test_a_bad_payload_is_refused_with_a_code_and_reaches_no_handler",),
    ),
    Mutation(
        "a client hears its own progress only",
        1,
        f"{CONTRACTS}/subjects.py",
        'return [f"{ROOT}.{tenant}.{user}.live.>",',
        'return [f"{ROOT}.{tenant}.*.live.>",',
        (f"{CALLOUT}::test_every_foreign_subscription_is_refused_by_the_server",),
    ),
    Mutation(
        "a client hears its own session's inbox only",
        1,
        f"{CONTRACTS}/subjects.py",
        'f"{user_inbox(caller)}.>"]',
        'f"{USER_INBOX}.{tenant}.{user}.>"]',
        (f"{CALLOUT}::test_every_foreign_subscription_is_refused_by_the_server",),
    ),
    Mutation(
        "a client says commands only",
        1,
        f"{CONTRACTS}/subjects.py",
        'return [f"{command_prefix(caller.tenant, caller.user)}.>",',
        "return [f\"{command_prefix(caller.tenant, caller.user).removesuffix('.cmd')}.>\",",
        (f"{CALLOUT}::test_every_foreign_publish_is_refused_by_the_server",),
    ),
    Mutation(
        "a disabled user is not let in",
        1,
        f"{AUTH}/projections.py",
        "if not member.active:",
        "if member is None:",
        (f"{DIRECTORY}::test_whoever_is_admitted_is_refused_after_each_kind_of_revocation",),
    ),
    Mutation(
        "a token from before a disabling is never good again",
        1,
        f"{AUTH}/projections.py",
        "for session in self.sessions_of(user):",
        "for session in ():",
        (f"{DIRECTORY}::test_a_session_whose_end_was_not_recorded_ends_with_its_users_disabling",),
    ),
    Mutation(
        "a session that is opened while its user is disabled never stands",
        1,
        f"{AUTH}/projections.py",
        "if member and not member.active:",
        "if member and member.active is None:",
        (f"{DIRECTORY}::test_a_session_that_was_opened_while_its_user_was_disabled_never_stands",),
    ),
    Mutation(
        "a disabled user's live connections are cut",
        1,
        f"{AUTH}/application.py",
        "cut = await self._cut_off(tenant)",
        "cut = Cut(0, 0)",
        (
            f"{LIVE}::test_disabling_cuts_every_live_connection_of_that_user_and_the_client_does_not_come_back",
            f"{LIVE}::test_no_message_passes_once_disabling_is_answered",
        ),
    ),
    Mutation(
        "whoever could not be cut off is cut later",
        1,
        f"{AUTH}/cutting.py",
        "if await self._kick(self._doomed()) == 0:",
        "if self._doomed() is not None:",
        (f"{CALLOUT}::test_whoever_cannot_be_cut_off_is_refused_all_the_same_and_cut_as_soon_as_it_can_be",),
    ),
    Mutation(
        "only whoever would be refused is cut",
        1,
        f"{AUTH}/cutting.py",
        "self._directory.admit(caller)\n            except NotAdmitted as refusal:",
        "raise NotAdmitted('x')\n            except NotAdmitted as refusal:",
        (f"{LIVE}::test_nobody_elses_connection_is_touched",),
    ),
    Mutation(
        "who was connected before a restart is known after it",
        1,
        f"{AUTH}/system_account.py",
        "self._live.surveyed(began_at, found)",
        "self._live.surveyed(began_at, {})",
        (
            f"{LIVE}::test_whoever_connected_before_a_restart_is_cut_off_after_it",
            f"{LIVE}::test_the_cap_is_not_forgotten_over_a_restart",
        ),
    ),
    Mutation(
        "the key that cuts connections does nothing else",
        1,
        f"{INFRA}/permissions.py",
        'subjects.kick("*"),',
        '"$SYS.REQ.>",',
        (f"{PERMISSIONS}::test_each_user_may_say_exactly_what_its_row_says",),
    ),
    Mutation(
        "an ended or unknown session is not let in",
        1,
        f"{AUTH}/projections.py",
        "if session is None or session.user != caller.user:",
        "if session is not None and session.user != caller.user:",
        (f"{CALLOUT}::test_an_ended_session_and_a_suspended_tenant_do_not_get_in",),
    ),
    Mutation(
        "what is recorded under a session is recorded under one of the user's own that stands",
        1,
        f"{CHASSIS}/sessions.py",
        'await ask(caller.tenant, caller.user, "auth", "describe-session", question, timeout_seconds=within_seconds)',
        "question.hex()",
        (
            f"{RUNS}::test_no_run_is_accepted_or_decided_under_a_session_that_is_none_of_the_users",
            f"{BROKER_SERVICE}::test_nothing_is_decided_or_kept_under_a_session_that_is_none_of_the_users",
            f"{TRAILS}::test_no_reading_is_recorded_under_a_session_that_is_none_of_the_readers",
        ),
    ),
    Mutation(
        "a session that has run out is none",
        1,
        f"{AUTH}/projections.py",
        "if session.expires_at <= at:",
        "if session.expires_at is None:",
        (
            "tests/integration/test_auth_service.py::test_a_service_that_asks_is_told_of_a_session_that_stands_and_of_no_other",
        ),
    ),
    Mutation(
        "an answer is taken from the service that was asked",
        1,
        f"{CHASSIS}/requester.py",
        "if waiting is None or answerer != _answerer(waiting[2]):",
        "if waiting is None:",
        (f"{REQUESTS}::test_an_answer_on_another_services_subject_is_no_answer",),
    ),
    Mutation(
        "administration is asked by the machine's own key only",
        1,
        f"{AUTH}/handlers.py",
        "if caller.user != SYSTEM_USER:",
        "if not caller.user:",
        ("tests/integration/test_auth_service.py::test_administration_is_refused_in_a_users_name",),
    ),
]

DENIAL = [
    Mutation(
        "only a literal true allows",
        2,
        f"{POLICY}/decisions.py",
        "_RESULTS = msgspec.json.Decoder(_Result)",
        "_RESULTS = msgspec.json.Decoder(_Result, strict=False)",
        (f"{DECISIONS}::test_only_an_exact_result_allows",),
    ),
    Mutation(
        "a failing engine denies",
        2,
        f"{POLICY}/application.py",
        "return denial(fault.code, fault.says)",
        "return Verdict(True, ())",
        (f"{DECISIONS}::test_an_engine_that_fails_denies_with_its_own_code",),
    ),
    Mutation(
        "without the directory everything is denied",
        2,
        f"{POLICY}/application.py",
        "verdict = _not_looked_up(fault)",
        "verdict = Verdict(True, ())",
        (f"{POLICY_SERVICE}::test_without_an_auth_service_everything_is_denied",),
    ),
    Mutation(
        "an evaluation has a deadline",
        2,
        f"{POLICY}/engine_process.py",
        "self._watchdog = self._loop.call_later(self._asked[0].deadline_seconds, self._late)",
        "self._watchdog = self._loop.call_later(3600.0, self._late)",
        (
            "tests/unit/policy/test_embedded_engine.py"
            "::test_a_policy_bomb_is_stopped_at_its_deadline_and_the_next_decision_works",
        ),
    ),
    Mutation(
        "a resource of another tenant is denied by the base policy",
        2,
        f"{POLICY}/rego/remit/base/base.rego",
        "\tinput.subject.properties.tenant == input.resource.properties.tenant\n",
        "",
        (f"{DECISIONS}::test_a_resource_of_another_tenant_is_denied_and_recorded",),
    ),
    Mutation(
        "a disabled user is denied by the base policy",
        2,
        f"{POLICY}/rego/remit/base/base.rego",
        "is_active if input.subject.properties.active == true",
        "is_active if is_boolean(input.subject.properties.active)",
        (f"{DECISIONS}::test_a_disabled_user_is_denied_at_once",),
    ),
    Mutation(
        "a permit is for a named tool call only",
        2,
        f"{POLICY}/decisions.py",
        'request.action.name == "tool.call"\n        and request.resource.type == "tool"',
        "bool(request.action.name)",
        (f"{DECISIONS}::test_being_allowed_to_read_a_run_called_sql_permits_no_call_of_sql",),
    ),
    Mutation(
        "an allowed decision without a permit is no permission",
        2,
        f"{RUNTIME}/tool_gate.py",
        "if answer.decision is not True or not context.permit:",
        "if answer.decision is not True:",
        (f"{GATE}::test_an_allowed_decision_without_a_permit_is_no_permission",),
    ),
    Mutation(
        "an unknown obligation refuses the call",
        2,
        f"{RUNTIME}/toolhost/obligations.py",
        'raise ToolRefused(f"the obligation {obligation.type[:80]!r} is not known here", code=UNKNOWN_OBLIGATION)',
        "continue",
        (
            f"{RUNS}::test_an_obligation_that_nobody_can_keep_lets_nothing_happen",
            f"{TOOL_HOST}::test_an_unknown_or_unenforceable_obligation_refuses_the_call",
        ),
    ),
    Mutation(
        "an obligation that the tool cannot keep refuses the call",
        2,
        f"{RUNTIME}/toolhost/obligations.py",
        "if obligation.type not in enforces:",
        "if not obligation.type:",
        (
            f"{RUNS}::test_an_obligation_that_nobody_can_keep_lets_nothing_happen",
            f"{TOOL_HOST}::test_an_unknown_or_unenforceable_obligation_refuses_the_call",
        ),
    ),
    Mutation(
        "a masked field is not read",
        2,
        f"{RUNTIME}/toolhost/obligations.py",
        'return column.lower() in self.masked or f"{table}.{column}".lower() in self.masked',
        "return False",
        (
            f"{TOOL_HOST}::test_obligations_are_enforced_and_told",
            "tests/unit/toolhost/test_sql_withholding.py::test_a_masked_column_is_never_shown_nor_guessed",
        ),
    ),
    Mutation(
        "rows outside the filter are not read",
        2,
        f"{RUNTIME}/toolhost/sql_shadow.py",
        'where = f" WHERE {\' AND \'.join(conditions)}" if conditions else ""',
        'where = ""',
        (f"{TOOL_HOST}::test_obligations_are_enforced_and_told",),
    ),
    Mutation(
        "a cap on rows is not passed by folding them",
        2,
        f"{RUNTIME}/toolhost/sql_shadow.py",
        "if self._bounds.max_rows is not None and (folding := _folding(action, second)):",
        'if folding := "":',
        ("tests/unit/toolhost/test_sql_bounds.py::test_a_cap_on_rows_is_not_passed_by_folding_rows_into_one_value",),
    ),
    Mutation(
        "a cap on rows is not passed by putting many rows into one",
        2,
        f"{RUNTIME}/toolhost/sql_tool.py",
        "return bounds.max_rows // weight.rows",
        "return bounds.max_rows",
        ("tests/unit/toolhost/test_sql_cap.py::test_no_answer_tells_of_more_people_than_the_cap",),
    ),
    Mutation(
        "a row that weighs more than the cap is refused",
        2,
        f"{RUNTIME}/toolhost/sql_tool.py",
        "if not bounds.max_rows or weight.rows <= bounds.max_rows:",
        "if True:",
        ("tests/unit/toolhost/test_sql_cap.py::test_numbers_that_each_tell_of_one_chosen_row_are_counted",),
    ),
    Mutation(
        "a condition is not tried on rows outside the filter",
        2,
        f"{RUNTIME}/toolhost/sql_shadow.py",
        'barrier = " LIMIT -1 OFFSET 0" if conditions else ""',
        'barrier = ""',
        (
            "tests/unit/toolhost/test_sql_withholding.py::test_a_condition_is_never_tried_on_a_row_that_the_filter_hides",
        ),
    ),
]

RECORD = [
    Mutation(
        "the authorisation is on disk before the tool is called",
        3,
        f"{RUNTIME}/tool_gate.py",
        "await saving.done()",
        "await asyncio.sleep(0)",
        (
            f"{RUNS}::test_while_the_authorisation_cannot_be_stored_the_tool_is_not_called",
            f"{GATE}::test_when_the_authorisation_cannot_be_stored_nothing_happens",
        ),
    ),
    Mutation(
        "a run is on disk before its acceptance is told",
        3,
        f"{RUNTIME}/application.py",
        "            hand = self._in_hand(caller.tenant, run)\n            await hand.save()\n        except Conflict:",
        "            hand = self._in_hand(caller.tenant, run)\n            hand.save_later()\n        except Conflict:",
        (f"{RUNS}::test_what_was_refused_for_want_of_a_disk_was_not_accepted",),
    ),
    Mutation(
        "a denial is on disk before it is told",
        3,
        f"{POLICY}/application.py",
        "await self._record(decision, caller)",
        "asyncio.ensure_future(self._record(decision, caller))",
        (f"{DECISIONS}::test_a_denial_is_an_answer_that_was_recorded_before_it_was_given",),
    ),
    Mutation(
        "every commit is synced",
        3,
        f"{CHASSIS}/eventstore/recorders.py",
        "PRAGMA synchronous=FULL",
        "PRAGMA synchronous=OFF",
        (f"{STORE}::test_every_commit_is_synced",),
    ),
    Mutation(
        "no lease without a store that takes its record",
        3,
        f"{BROKER}/leasing.py",
        "await self._records.require_writable(caller.tenant)",
        "",
        (f"{LEASING}::test_while_the_store_cannot_be_written_no_lease_is_issued_and_then_what_is_missing_comes_first",),
    ),
    Mutation(
        "the reading of a trail is recorded before it is shown",
        3,
        f"{AUDIT}/application.py",
        "await self._service.stores.of(caller.tenant).save(reading, user=caller.user)",
        "self._service.stores.of(caller.tenant).save_later(reading, user=caller.user)",
        ("tests/platform/test_under_faults.py::test_a_trail_is_not_shown_while_its_reading_cannot_be_recorded",),
    ),
]

CREDENTIALS = [
    Mutation(
        "a permit is signed by policy",
        4,
        f"{CHASSIS}/permits.py",
        "self._key.verify(encoded, signature)",
        "pass",
        (
            f"{TOOL_HOST}::test_the_process_refuses_what_its_permit_does_not_say",
            f"{LEASING}::test_a_permit_that_somebody_else_signed_gets_no_lease",
        ),
    ),
    Mutation(
        "an expired permit permits nothing",
        4,
        f"{CHASSIS}/permits.py",
        "if not now < claims.exp:",
        "if now < 0:",
        (
            f"{TOOL_HOST}::test_the_process_refuses_what_its_permit_does_not_say",
            f"{LEASING}::test_an_expired_permit_gets_no_lease",
        ),
    ),
    Mutation(
        "a lease is for whom the subject names",
        4,
        f"{BROKER}/leasing.py",
        "claims.require(tenant=caller.tenant, user=caller.user, run=request.run, tool=request.tool)",
        "claims.require(run=request.run, tool=request.tool)",
        (
            f"{BROKER_SERVICE}::test_the_subject_says_whose_lease_it_is_and_not_the_permit",
            f"{LEASING}::test_a_permit_of_somebody_else_gets_no_lease_and_stays_theirs",
        ),
    ),
    Mutation(
        "a lease is for the permit's run and tool",
        4,
        f"{BROKER}/leasing.py",
        "claims.require(tenant=caller.tenant, user=caller.user, run=request.run, tool=request.tool)",
        "claims.require(tenant=caller.tenant, user=caller.user)",
        (f"{LEASING}::test_a_permit_for_something_else_gets_no_lease",),
    ),
    Mutation(
        "a permit is leased against once",
        4,
        f"{BROKER}/used_permits.py",
        "if permit in self._expiry or expires <= self.floor:",
        "if expires <= self.floor:",
        (
            f"{BROKER_SERVICE}::test_of_fifty_uses_of_one_permit_on_the_bus_one_works",
            f"{LEASING}::test_of_fifty_uses_of_one_permit_at_once_one_works",
        ),
    ),
    Mutation(
        "a permit from before the broker's start is refused",
        4,
        f"{BROKER}/leasing.py",
        "if claims.iat <= self._started_at:",
        "if claims.iat <= 0:",
        (f"{LEASING}::test_a_permit_that_was_not_used_before_the_start_is_refused_too",),
    ),
    Mutation(
        "a permit names the connection that is lent",
        4,
        f"{BROKER}/leasing.py",
        "if CONNECTION_SCOPE + name not in claims.scopes:",
        "if not claims.scopes:",
        (f"{LEASING}::test_another_connection_than_the_permits_is_not_lent",),
    ),
    Mutation(
        "a lease is as wide as its connection at most",
        4,
        f"{BROKER}/leasing.py",
        "if wider := sorted(set(_outside(claims)) - set(connection.scopes)):",
        "if wider := sorted(set()):",
        (f"{LEASING}::test_a_permit_wider_than_the_connection_gets_no_lease",),
    ),
    Mutation(
        "nothing is leased on a revoked connection",
        4,
        f"{BROKER}/leasing.py",
        "if not connection.active:",
        "if connection is None:",
        (f"{LEASING}::test_after_a_revocation_there_is_no_lease",),
    ),
    Mutation(
        "a secret without a host is lent to nobody",
        4,
        f"{BROKER}/leasing.py",
        "if not connection.hosts:",
        "if connection.hosts is None:",
        (f"{LEASING}::test_a_connection_without_a_host_is_lent_to_nobody_and_the_permit_stays_unused",),
    ),
    Mutation(
        "a leased credential goes to its hosts only",
        4,
        f"{RUNTIME}/toolhost/http_tool.py",
        "if _authority(tool.host, tool.url) not in {_authority(host, tool.url) for host in lease.hosts}:",
        "if not tool.host:",
        (f"{TOOL_HTTP}::test_a_lease_for_anything_else_opens_no_connection",),
    ),
    Mutation(
        "a lease is for exactly the call that is permitted",
        4,
        f"{RUNTIME}/toolhost/admission.py",
        'for name in ("jti", "tenant", "user", "session", "run", "ordinal", "tool"):',
        "for name in ():",
        (
            f"{TOOL_HTTP}::test_a_lease_for_anything_else_opens_no_connection",
            "tests/unit/toolhost/test_admission.py::test_a_lease_for_anything_else_is_refused",
        ),
    ),
    Mutation(
        "a result is scrubbed of the credential",
        4,
        f"{RUNTIME}/toolhost/http_tool.py",
        "answer = scrubber.clean(_decoded(kind, raw))",
        "answer = _decoded(kind, raw)",
        (f"{TOOL_HTTP}::test_an_echoed_credential_is_taken_out",),
    ),
    Mutation(
        "the tool host gets an empty environment",
        4,
        f"{RUNTIME}/tool_host_client.py",
        "env={},",
        "env=None,",
        (
            "tests/unit/toolhost/test_tool_host_start.py::test_the_tool_host_is_started_without_the_runtimes_environment",
        ),
    ),
]

SEPARATION = [
    Mutation(
        "a stored state opens as its own user's only",
        5,
        f"{CHASSIS}/eventstore/mapper.py",
        "scope = self._scopes[user] = data_key_scope(self._tenant, user)",
        'scope = self._scopes[user] = b""',
        (
            "tests/platform/test_user_keys.py::test_one_users_events_do_not_open_with_anothers_key_nor_as_anothers",
            "tests/unit/chassis_eventstore/test_mapper.py::test_a_state_cannot_be_moved_or_altered",
        ),
    ),
    Mutation(
        "tenant and user are in every key's scope",
        5,
        f"{CONTRACTS}/identity.py",
        "return f\"{label(tenant, kind='tenant')}/{label(user, kind='user')}\".encode()",
        "return f\"{label(user, kind='user')}\".encode()",
        (
            "tests/unit/contracts/test_identity.py::test_two_users_never_share_a_key_scope",
            "tests/unit/chassis_eventstore/test_mapper.py::test_a_state_opens_in_its_own_tenant_only",
        ),
    ),
    Mutation(
        "every user has a key of their own",
        5,
        f"{CHASSIS}/vaultfile.py",
        'sealed = _seal(self._tenant_key(tenant), os.urandom(KEY_BYTES), b"user-key", scope)',
        'sealed = _seal(self._tenant_key(tenant), self._master, b"user-key", scope)',
        (
            "tests/platform/test_user_keys.py::test_every_user_has_a_key_of_their_own_also_under_one_id_in_two_tenants",
            "tests/unit/chassis_eventstore/test_vaultfile.py::test_every_user_of_every_tenant_has_another_key",
        ),
    ),
    Mutation(
        "a run is shown to its user, or by a decision",
        5,
        f"{RUNTIME}/application.py",
        "if run and run.user == caller.user:",
        "if run:",
        (f"{ON_THE_BUS}::test_another_users_run_is_absent_without_a_permission",),
    ),
    Mutation(
        "a list of runs is one's own",
        5,
        f"{CHASSIS}/eventstore/recorders.py",
        "WHERE user_id = ? AND rowid > ?",
        "WHERE user_id >= ? AND rowid > ?",
        (f"{STORE}::test_a_users_events_are_found_and_no_others",),
    ),
    Mutation(
        "one's idempotency key names no other's run",
        5,
        f"{RUNTIME}/application.py",
        "scope = data_key_scope(caller.tenant, caller.user)",
        "scope = data_key_scope(caller.tenant, caller.tenant)",
        (
            f"{RUNS}::test_a_request_sent_ten_times_under_one_key_acts_once",
            "tests/platform/test_user_keys.py::test_one_idempotency_key_of_two_users_is_two_runs",
        ),
    ),
    Mutation(
        "another's trail is shown by a decision only",
        5,
        f"{AUDIT}/access.py",
        "decision = await _decide(service, caller, user or of)",
        "decision: dict[str, Any] = {}",
        (f"{TRAILS}::test_forbidden_and_absent_trails_answer_alike",),
    ),
    Mutation(
        "an entry of another's is proved to nobody",
        5,
        f"{AUDIT}/application.py",
        "if entry is None or entry.envelope.user != user:",
        "if entry is None:",
        (
            "tests/unit/audit/test_verify_proof.py::test_nobody_gets_a_proof_of_another_user_s_entry",
            f"{TRAILS}::test_a_trail_verifies_and_a_proof_holds_offline",
        ),
    ),
    Mutation(
        "one's connection is lent to oneself only",
        5,
        f"{BROKER}/vault.py",
        "place = (tenant, owner, name)\n        kept",
        'place = (tenant, "", name)\n        kept',
        ("tests/unit/credential_broker/test_secrets_cache.py::test_one_owners_cached_secret_is_not_anothers",),
    ),
]

LOG = [
    Mutation(
        "a stream that would let events go is refused",
        6,
        f"{CHASSIS}/streams.py",
        '"deny_delete": True,',
        '"deny_delete": False,',
        (f"{AT_WORK}::test_a_stream_that_is_not_as_it_must_be_is_found_and_never_repaired",),
    ),
    Mutation(
        "a feature of streams that is not known is off",
        6,
        f"{CHASSIS}/streams.py",
        "if value and setting not in wanted and setting not in _FREE",
        "if value and setting not in wanted and setting in _FREE",
        (f"{AT_WORK}::test_a_stream_that_is_not_as_it_must_be_is_found_and_never_repaired",),
    ),
    Mutation(
        "a service writes its own events only",
        6,
        f"{INFRA}/permissions.py",
        "        subjects.any_event(service),\n",
        '        "remit.*.*.evt.*.*",\n',
        (f"{PERMISSIONS}::test_each_user_may_say_exactly_what_its_row_says",),
    ),
    Mutation(
        "no service changes a stream",
        6,
        f"{INFRA}/permissions.py",
        'f"{_STREAM_API}.INFO.*",  # the relay',
        'f"{_STREAM_API}.*.*",  # the relay',
        (f"{AT_WORK}::test_no_service_changes_a_stream",),
    ),
    Mutation(
        "a duplicate is compared, never taken for success",
        6,
        f"{CHASSIS}/eventstore/relay.py",
        "elif ack.duplicate and not await self._is_stored(connection, envelope, ack.sequence):",
        "elif not ack.duplicate and ack.sequence < 0:",
        (f"{FORGERIES}::test_a_claimed_message_id_is_not_taken_for_success",),
    ),
    Mutation(
        "nothing is added to a stream that forked",
        6,
        f"{CHASSIS}/eventstore/relay.py",
        "if not stored or stored[0] != envelope:",
        "if envelope.notification_id < 0:",
        (f"{FORGERIES}::test_a_stream_that_ends_with_what_the_store_has_not_is_an_alarm",),
    ),
    Mutation(
        "a store takes nothing before its log was compared with the stream",
        6,
        f"{CHASSIS}/eventstore/relay.py",
        "        store.await_witness()\n",
        "",
        (
            f"{AGAINST_STREAM}::test_a_store_whose_file_is_gone_takes_no_save_at_all",
            f"{AGAINST_STREAM}::test_an_older_copy_of_a_store_takes_no_save_at_all",
        ),
    ),
    Mutation(
        "nothing is answered from a log that is contradicted",
        6,
        f"{CHASSIS}/endpoints.py",
        "            if self.from_log:\n",
        "            if False:\n",
        (f"{SERVICE}::test_a_contradicted_tenant_is_refused_on_every_verb_and_no_other_is",),
    ),
    Mutation(
        "each event names the hash of the one before it",
        6,
        f"{CHASSIS}/eventstore/chain.py",
        "            or envelope.prev_hash != previous\n",
        "",
        (
            "tests/unit/chassis_eventstore/test_chain_links.py"
            "::test_an_event_rewritten_with_a_fitting_hash_is_found_by_the_one_after_it",
        ),
    ),
    Mutation(
        "nothing is added to a chain that was altered",
        6,
        f"{CHASSIS}/eventstore/groupcommit.py",
        "if broken is not None:",
        "if broken == 0:",
        (f"{STORE_TAMPERING}::test_a_chain_that_was_tampered_with_is_not_added_to",),
    ),
    Mutation(
        "a second event under a known number is a fork",
        6,
        f"{AUDIT}/ledger.py",
        "if known not in (None, envelope.hash):",
        "if known == b'':",
        (
            f"{LEDGER}::test_a_second_event_under_a_known_number_is_a_fork_and_changes_nothing",
            f"{CONSUMER}::test_a_second_event_under_a_number_is_a_fork",
        ),
    ),
    Mutation(
        "the ledger's root is the one that was signed",
        6,
        f"{AUDIT}/ledger_end.py",
        "if signed and signed.root != tree.root():",
        "if signed and not tree.root():",
        (f"{LEDGER}::test_a_tree_that_its_own_checkpoint_does_not_sign_is_refused_without_the_note_beside",),
    ),
    Mutation(
        "a destroyed key never comes back",
        6,
        f"{CHASSIS}/vaultfile.py",
        "            if row[0] is None:\n                raise Absent",
        "            if row[0] is None:\n                return bytes(KEY_BYTES)\n                raise Absent",
        (
            "tests/unit/chassis_eventstore/test_vaultfile.py::test_a_destroyed_key_never_comes_back",
            f"{BROKER_SERVICE}::test_an_erased_users_key_is_absent_for_ever",
        ),
    ),
    Mutation(
        "an outcome without an authorisation before it is found",
        6,
        f"{AUDIT}/effects.py",
        "elif ordinal in authorised:",
        "elif ordinal:",
        ("tests/unit/audit/test_offline.py::test_an_effect_without_an_authorisation_before_it_is_found",),
    ),
]

OVERLOAD = [
    Mutation(
        "one user's live connections have a cap",
        7,
        f"{AUTH}/live_connections.py",
        "if len(others) >= self._cap:",
        "if len(others) < 0:",
        (
            f"{LIVE}::test_the_cap_holds_is_told_and_a_connection_that_ends_frees_its_place",
            f"{COUNTING}::test_the_cap_counts_all_sessions_of_a_user_and_no_other_user",
        ),
    ),
    Mutation(
        "nobody is let in while it is not known who is connected",
        7,
        f"{AUTH}/live_connections.py",
        "if not self.known:",
        "if self.known is None:",
        (
            f"{COUNTING}::test_nobody_is_granted_a_place_before_the_servers_were_asked_and_after_their_line_was_lost",
            "tests/unit/auth/test_callout.py::test_nobody_is_let_in_while_it_is_not_known_who_is_connected",
        ),
    ),
    Mutation(
        "one user's commands at a time have a bound",
        7,
        f"{CHASSIS}/doorman.py",
        "if held < self._bounds.of_one_user and self._in_all < self._bounds.of_all:",
        "if self._in_all < self._bounds.of_all:",
        (
            f"{SERVICE}::test_a_user_over_the_bound_of_commands_at_a_time_is_refused_and_others_are_answered",
            f"{DOORMAN}::test_one_user_over_the_bound_is_refused_and_another_is_let_in",
        ),
    ),
    Mutation(
        "all users' commands at a time have a bound",
        7,
        f"{CHASSIS}/doorman.py",
        "if held < self._bounds.of_one_user and self._in_all < self._bounds.of_all:",
        "if held < self._bounds.of_one_user:",
        (f"{DOORMAN}::test_all_together_have_a_bound_and_are_told_whose_it_is",),
    ),
    Mutation(
        "a flood takes neither a service's memory nor its connection",
        7,
        f"{CHASSIS}/doorman.py",
        "if held < self._bounds.of_one_user and self._in_all < self._bounds.of_all:",
        "if held >= 0:",
        (f"{FLOOD}::test_a_flood_takes_no_service_from_another_user_and_is_cut_off",),
    ),
    Mutation(
        "a refusal of too many commands goes where the guard lets it go",
        1,
        f"{CHASSIS}/doorman.py",
        "            goes_to = where_to_refuse(of_guard, message.subject, message.reply, endpoint.kind)\n",
        "",
        (f"{DOORMAN}::test_a_refusal_never_goes_to_a_foreign_reply_and_is_told_on_the_senders_own_subject",),
    ),
    Mutation(
        "refusals have a bound, and what is beyond it is counted",
        7,
        f"{CHASSIS}/doorman.py",
        "if self._refused[user] > self._bounds.refusals_per_second or self._waiting.full():",
        "if self._waiting.full():",
        (f"{DOORMAN}::test_refusals_beyond_their_own_bound_are_counted_and_told_in_one_line",),
    ),
    Mutation(
        "who floods the bus is cut off",
        7,
        f"{AUTH}/message_rates.py",
        "if in_all <= self._per_second:",
        "if in_all >= 0:",
        (
            f"{LIVE}::test_whoever_floods_is_told_cut_off_and_refused_and_others_are_not",
            f"{RATES}::test_a_user_over_the_bound_is_cut_and_refused_and_others_are_not",
        ),
    ),
    Mutation(
        "who flooded the bus is refused for a while",
        7,
        f"{AUTH}/callout.py",
        "            self._rates.admit(caller)\n",
        "",
        ("tests/unit/auth/test_callout.py::test_a_user_who_flooded_is_refused_for_a_while_and_another_is_not",),
    ),
    Mutation(
        "a full queue refuses at admission",
        7,
        f"{RUNTIME}/queue.py",
        "if full or self._per_user[key] >= self._limit_per_user:",
        "if self._limit < 0:",
        (f"{RUNS}::test_a_full_queue_refuses_loudly_leaves_others_room_and_loses_nothing",),
    ),
    Mutation(
        "one user never fills the queue",
        7,
        f"{RUNTIME}/queue.py",
        "if full or self._per_user[key] >= self._limit_per_user:",
        "if full:",
        (f"{RUNS}::test_a_full_queue_refuses_loudly_leaves_others_room_and_loses_nothing",),
    ),
    Mutation(
        "a place is kept until all requests of its key gave it back",
        7,
        f"{RUNTIME}/queue.py",
        "if held.claims <= 0 and held.task is None:",
        "if held.task is None:",
        (
            f"{PLACES}::test_a_request_that_fails_leaves_the_place_to_the_other_of_its_key",
            f"{PLACES}::test_a_request_that_comes_second_leaves_its_place_to_the_accepted_run",
        ),
    ),
    Mutation(
        "a full line of calls refuses",
        7,
        f"{RUNTIME}/fairness.py",
        "if full or (self._bound_per_user is not None and len(line.waiting) >= self._bound_per_user):",
        "if self._cap < 0:",
        (
            f"{RUNS}::test_calls_beyond_what_may_wait_are_refused_and_their_runs_say_so",
            "tests/unit/agent_runtime/test_fairness.py::test_a_full_line_refuses_at_once_and_says_when_to_come_back",
        ),
    ),
    Mutation(
        "a user at the cap waits, and others do not",
        7,
        f"{RUNTIME}/fairness.py",
        "if self._in_flight < self._cap and not self._ring and line.in_flight < self._cap_per_user:",
        "if self._in_flight < self._cap and not self._ring:",
        ("tests/unit/agent_runtime/test_fairness.py::test_one_user_never_holds_more_turns_than_the_cap_per_user",),
    ),
    Mutation(
        "too many waiting saves are refused",
        7,
        f"{CHASSIS}/eventstore/store.py",
        "if self._waiting >= _MOST_WAITING:",
        "if self._waiting < 0:",
        (f"{STORE_DISK}::test_too_many_waiting_saves_are_refused",),
    ),
    Mutation(
        "too many waiting decisions are refused",
        7,
        f"{POLICY}/embedded.py",
        "if self._waiting >= self._max_waiting:",
        "if self._waiting < 0:",
        (
            "tests/unit/policy/test_embedded_engine.py"
            "::test_more_waiting_decisions_than_there_is_room_for_are_refused_loudly",
        ),
    ),
    Mutation(
        "an oversized payload is refused",
        7,
        f"{CHASSIS}/guard.py",
        "if payload_bytes > max_bytes:",
        "if payload_bytes < 0:",
        (
            f"{SERVICE}::test_a_bad_payload_is_refused_with_a_code_and_reaches_no_handler",
            f"{POLICY_SERVICE}::test_bad_input_is_a_coded_refusal_and_never_a_silence",
        ),
    ),
    Mutation(
        "a refusal that cannot be answered is told on the sender's own subject",
        7,
        f"{CHASSIS}/endpoints.py",
        'if named and kind == "cmd" else None',
        "if named and not kind else None",
        (f"{SERVICE}::test_an_answer_never_goes_to_a_foreign_reply_and_the_sender_is_told_on_their_own_subject",),
    ),
]

ONCE = [
    Mutation(
        "a permit is used once in the tool host",
        8,
        f"{RUNTIME}/toolhost/once.py",
        "        if name in self._used:\n            return False\n",
        "",
        (
            f"{TOOL_HOST}::test_a_used_permit_is_not_good_for_a_second_effect_at_the_same_moment",
            f"{TOOL_HTTP}::test_the_same_call_twice_reaches_the_server_once",
        ),
    ),
    Mutation(
        "a permit from before the tool host's start is refused",
        8,
        f"{RUNTIME}/toolhost/admission.py",
        "if claims.iat < self._started_at:",
        "if claims.iat < 0:",
        (f"{TOOL_HOST}::test_a_host_killed_with_calls_on_their_way_is_lost_and_comes_back",),
    ),
    Mutation(
        "a permit is for these arguments",
        8,
        f"{RUNTIME}/toolhost/admission.py",
        "claims.require(tool=call.tool, args_digest=args_digest(call.arguments))",
        "claims.require(tool=call.tool)",
        (f"{TOOL_HOST}::test_the_process_refuses_what_its_permit_does_not_say",),
    ),
    Mutation(
        "a permit is for this tool",
        8,
        f"{RUNTIME}/toolhost/admission.py",
        "claims.require(tool=call.tool, args_digest=args_digest(call.arguments))",
        "claims.require(args_digest=args_digest(call.arguments))",
        ("tests/unit/toolhost/test_admission.py::test_a_permit_for_something_else_is_refused",),
    ),
    Mutation(
        "an effect's key is the permit's",
        8,
        f"{RUNTIME}/toolhost/admission.py",
        "if call.idempotency_key != claims.effect_key:",
        "if not call.idempotency_key:",
        ("tests/unit/toolhost/test_admission.py::test_a_permit_for_something_else_is_refused",),
    ),
    Mutation(
        "a version of an aggregate is stored once",
        8,
        f"{CHASSIS}/eventstore/recorders.py",
        '"UNIQUE (originator_id, originator_version))",',
        '"CHECK (originator_version > 0))",',
        (
            f"{STORE_GROUPS}::test_a_conflict_amid_a_group_fails_alone_and_leaves_no_gap",
            "tests/unit/agent_runtime/test_worker.py::test_a_rival_process_cannot_make_a_second_call",
        ),
    ),
    Mutation(
        "a call that was made is answered from the journal",
        8,
        f"{RUNTIME}/tool_gate.py",
        "if (recorded := _recorded(hand, tool.id, digest)) is not None:",
        "if (recorded := _recorded(hand, tool.id, digest)) is not None and not recorded.ordinal:",
        (f"{GATE}::test_a_replay_is_answered_from_the_journal_and_calls_nothing",),
    ),
    Mutation(
        "a call that a crash left open is unknown, not made again",
        8,
        f"{RUNTIME}/domain.py",
        '        self.abandon_open_call(reason="the runtime ended before the tool\'s answer was recorded", at=at)\n',
        "",
        (
            f"{RUN_DOMAIN}::test_a_call_left_open_by_a_crash_becomes_unknown_when_the_run_starts_again",
            "tests/unit/agent_runtime/test_worker.py::test_after_a_crash_in_a_tool_the_run_ends_and_no_call_was_made_twice",
        ),
    ),
    Mutation(
        "an unknown outcome is said to be unknown",
        8,
        f"{RUNTIME}/tool_host_client.py",
        'if outcome.error is not None and outcome.error.get("code") == OUTCOME_UNKNOWN:',
        "if outcome.error is not None and not outcome.error:",
        (f"{TOOL_HTTP}::test_a_request_that_may_have_been_acted_on_has_an_unknown_outcome",),
    ),
    Mutation(
        "a run has one end",
        8,
        f"{RUNTIME}/domain.py",
        "        if self.has_ended:\n            raise RunHasEnded",
        "        if not self.status:\n            raise RunHasEnded",
        (f"{RUN_DOMAIN}::test_nothing_follows_the_end",),
    ),
    Mutation(
        "a job of a run that has ended does nothing",
        8,
        f"{RUNTIME}/worker.py",
        "        if hand.run.has_ended:\n            return\n",
        "",
        (
            f"{RUNS}::test_a_replayed_job_repeats_no_effect_and_ends_no_run_twice",
            "tests/unit/agent_runtime/test_worker.py::test_a_run_that_ended_is_left_alone",
        ),
    ),
    Mutation(
        "one idempotency key is one run",
        8,
        f"{RUNTIME}/application.py",
        "    if not idempotency_key:\n",
        "    if idempotency_key or not idempotency_key:\n",
        (f"{RUNS}::test_a_request_sent_ten_times_under_one_key_acts_once",),
    ),
    Mutation(
        "an event is in the ledger once",
        8,
        f"{AUDIT}/ledger.py",
        "known = None if number == last + 1 else self._known(service, number)",
        "known = None",
        (f"{LEDGER}::test_what_was_received_already_is_not_appended_again",),
    ),
]

MUTATIONS: Final = (
    *IDENTITY, *DENIAL, *RECORD, *CREDENTIALS, *SEPARATION, *LOG, *OVERLOAD, *ONCE,
)  # fmt: skip

INVARIANTS: Final = {
    1: "Identity comes from the subject, never from a payload or a header",
    2: "Deny by default",
    3: "Nothing happens unrecorded",
    4: "No master credential leaves the broker; no credential ever enters a sandbox",
    5: "One user's data never shares a key, index, cache entry, process or inbox with another's",
    6: "The log only grows",
    7: "Overload is refused loudly, never dropped silently",
    8: "An effect happens at most once",
}
