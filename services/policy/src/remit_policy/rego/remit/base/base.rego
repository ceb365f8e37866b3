# METADATA
# title: Base policy
# description: |
#   What no role, grant or tenant's bundle can override: isolation of tenants, active subjects only, known actions only.
#   Evaluated before everything else, on its own; it reads no grants.
# scope: package
package remit.base

import rego.v1

# METADATA
# description: Every action that exists; the contracts name the same ones
# scope: document
known_actions := {
	"admin.audit",
	"admin.configure",
	"admin.operate",
	"agent.invoke",
	"connection.add",
	"connection.read",
	"connection.revoke",
	"connection.share",
	"connection.test",
	"data.read",
	"field.protect",
	"field.read",
	"lease.read",
	"lease.revoke",
	"model.call",
	"role.assign",
	"role.define",
	"role.read",
	"role.remove",
	"run.cancel",
	"run.read",
	"tool.call",
	"trail.read",
	"user.disable",
	"user.enable",
	"user.read",
	"user.register",
}

# METADATA
# description: |
#   Why the request is refused whatever the roles say; empty when nothing speaks against it. Each condition is a rule of its
#   own: `not` before an expression whose parts are undefined would leave the reason out.
# scope: document
reasons contains {"code": "policy.unknown_subject", "message": "only users are decided about"} if not is_user

reasons contains {"code": "policy.unknown_tenant", "message": "this tenant has no roles here"} if not is_known_tenant

reasons contains {"code": "policy.foreign_tenant", "message": "the resource is not of your tenant"} if not is_own_tenant

reasons contains {"code": "policy.inactive_subject", "message": "this user is disabled"} if not is_active

reasons contains {"code": "policy.unknown_action", "message": "this action is not known"} if not is_known_action

# METADATA
# description: The subject is a user
# scope: document
is_user if input.subject.type == "user"

# METADATA
# description: The roles of the subject's tenant are there
# scope: document
is_known_tenant if data.directory[input.subject.properties.tenant].revision

# METADATA
# description: Both sides name a tenant, and it is the same one
# scope: document
is_own_tenant if {
	is_string(input.subject.properties.tenant)
	input.subject.properties.tenant == input.resource.properties.tenant
}

# METADATA
# description: The user is not disabled
# scope: document
is_active if input.subject.properties.active == true

# METADATA
# description: The action is one of those that exist
# scope: document
is_known_action if input.action.name in known_actions
