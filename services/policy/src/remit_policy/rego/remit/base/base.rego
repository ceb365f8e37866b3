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
# description: Why the request is refused whatever the roles say; empty when nothing speaks against it
# scope: document
reasons contains {"code": "policy.unknown_subject", "message": "only users are decided about"} if {
	not input.subject.type == "user"
}

reasons contains {"code": "policy.unknown_tenant", "message": "this tenant has no roles here"} if {
	not data.directory[input.subject.properties.tenant].revision
}

reasons contains {"code": "policy.foreign_tenant", "message": "the resource does not belong to your tenant"} if {
	not same_tenant
}

reasons contains {"code": "policy.inactive_subject", "message": "this user is disabled"} if {
	not input.subject.properties.active == true
}

reasons contains {"code": "policy.unknown_action", "message": "this action is not known"} if {
	not input.action.name in known_actions
}

# METADATA
# description: Both sides name a tenant, and it is the same one
# scope: document
default same_tenant := false

same_tenant if {
	is_string(input.subject.properties.tenant)
	input.subject.properties.tenant == input.resource.properties.tenant
}
