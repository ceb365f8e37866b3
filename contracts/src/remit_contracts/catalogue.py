"""Every request on the bus, by service: the source of the AsyncAPI document, and what each service must answer."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel

from remit_contracts import connections, decisions, directory, leases, operations, runs, trails, user_keys
from remit_contracts.messages import Nothing
from remit_contracts.subjects import SERVICES


class Operation(NamedTuple):
    """One verb: the command that it takes and the answer that it gives when it does not refuse."""

    kind: Literal["cmd", "rpc"]
    service: str
    verb: str
    command: type[BaseModel]
    answer: type[BaseModel]
    summary: str


OPERATIONS: tuple[Operation, ...] = (
    Operation("cmd", "auth", "whoami", Nothing, directory.Identity, "Who the caller is."),
    Operation("rpc", "auth", "describe-subject", Nothing, directory.SubjectDescribed, "The user, for policy."),
    Operation(
        "rpc",
        "auth",
        "describe-session",
        directory.DescribeSession,
        directory.SessionDescribed,
        "Whether a session stands, for whoever records it.",
    ),
    Operation("rpc", "auth", "describe-tenant", Nothing, directory.TenantDescribed, "The tenant's roles, for policy."),
    Operation("rpc", "auth", "resolve", directory.Resolve, directory.UserRow, "The user of a handle."),
    Operation("rpc", "auth", "list-users", directory.ListUsers, directory.UsersListed, "Users of the tenant."),
    Operation("rpc", "auth", "list-roles", Nothing, directory.RolesListed, "Roles of the tenant."),
    Operation("rpc", "auth", "list-tenants", Nothing, directory.TenantsListed, "All tenants."),
    Operation("rpc", "auth", "create-tenant", directory.CreateTenant, directory.DirectoryChanged, "A new tenant."),
    Operation(
        "rpc", "auth", "set-tenant-active", directory.SetTenantActive, directory.TenantActivitySet, "Suspend or resume."
    ),
    Operation("rpc", "auth", "define-role", directory.DefineRole, directory.DirectoryChanged, "A role's definition."),
    Operation(
        "rpc", "auth", "protect-fields", directory.ProtectFields, directory.DirectoryChanged, "Fields that stay masked."
    ),
    Operation("rpc", "auth", "register-user", directory.RegisterUser, directory.UserRow, "A new user."),
    Operation(
        "rpc", "auth", "set-user-active", directory.SetUserActive, directory.UserActivitySet, "Disable or enable."
    ),
    Operation("rpc", "auth", "assign-role", directory.AssignRole, directory.UserRow, "Give a user a role."),
    Operation("rpc", "auth", "remove-role", directory.RemoveRole, directory.UserRow, "Take a role from a user."),
    Operation("rpc", "auth", "issue-token", directory.IssueToken, directory.TokenIssued, "Open a session."),
    Operation("rpc", "auth", "end-session", directory.EndSession, directory.SessionEnded, "End a session."),
    Operation("rpc", "policy", "decide", decisions.DecisionRequest, decisions.DecisionAnswer, "May they? (hot)"),
    Operation("rpc", "policy", "info", Nothing, decisions.PolicyInfo, "Engine and bundle in force."),
    Operation("rpc", "policy", "redecide", decisions.Redecide, decisions.Redecided, "Decide a recorded input again."),
    Operation("rpc", "credential-broker", "lease", leases.LeaseRequest, leases.LeaseAnswer, "One credential (hot)."),
    Operation("rpc", "credential-broker", "user-key", user_keys.UserKey, user_keys.UserKeySealed, "A user's data key."),
    Operation("cmd", "credential-broker", "sealing-key", Nothing, connections.SealingKey, "What to seal secrets to."),
    Operation(
        "cmd",
        "credential-broker",
        "add-connection",
        connections.AddConnection,
        connections.ConnectionShown,
        "Add a connection.",
    ),
    Operation(
        "cmd", "credential-broker", "list-connections", Nothing, connections.ConnectionsListed, "One's own, and shared."
    ),
    Operation(
        "cmd",
        "credential-broker",
        "show-connection",
        connections.ShowConnection,
        connections.ConnectionShown,
        "One connection, without its secret.",
    ),
    Operation(
        "cmd",
        "credential-broker",
        "test-connection",
        connections.TestConnection,
        connections.ConnectionTested,
        "Whether the outside system accepts the secret.",
    ),
    Operation(
        "cmd",
        "credential-broker",
        "revoke-connection",
        connections.RevokeConnection,
        connections.ConnectionShown,
        "Destroy the secret.",
    ),
    Operation("cmd", "credential-broker", "list-leases", leases.ListLeases, leases.LeasesListed, "One's own leases."),
    Operation("cmd", "agent-runtime", "start-run", runs.StartRun, runs.RunStarted, "Accept a run, durably."),
    Operation("cmd", "agent-runtime", "cancel-run", runs.CancelRun, runs.RunStarted, "End a run."),
    Operation("cmd", "agent-runtime", "show-run", runs.ShowRun, runs.RunView, "One run, step by step."),
    Operation("cmd", "agent-runtime", "list-runs", runs.ListRuns, runs.RunsListed, "One's own runs."),
    Operation("cmd", "agent-runtime", "list-agents", runs.ListAgents, runs.AgentsListed, "The tenant's agents."),
    Operation("cmd", "audit", "show-trail", trails.ShowTrail, trails.TrailPage, "A page of a trail."),
    Operation("cmd", "audit", "verify-trail", trails.VerifyTrail, trails.TrailVerified, "Recompute a trail's hashes."),
    Operation("cmd", "audit", "prove-entry", trails.ProveEntry, trails.ProofBundle, "A proof to check offline."),
    Operation("cmd", "audit", "checkpoint", trails.ShowCheckpoint, trails.CheckpointShown, "The signed tree head."),
    Operation("rpc", "audit", "follow", trails.FollowTenant, trails.TenantFollowed, "Begin a tenant's ledger."),
    Operation("rpc", "audit", "check", trails.CheckCopies, trails.AuditReport, "Every copy and every proof."),
    *(
        Operation("rpc", service, verb, command, answer, summary)
        for service in SERVICES
        for verb, command, answer, summary in (
            ("health", Nothing, operations.Health, "Whether it is ready, and why not."),
            ("metrics", Nothing, operations.MetricsShown, "The Prometheus text format."),
            ("log-head", Nothing, operations.LogHead, "The last event of a tenant's log."),
            ("republish", operations.Republish, operations.Republished, "A range of the log again."),
        )
    ),
)
