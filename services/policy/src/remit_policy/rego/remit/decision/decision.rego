# METADATA
# title: Decision
# description: |
#   The one document that is asked for. The base policy comes first: while it has a reason against the request, nothing
#   else is looked at. Whatever is undefined here counts as a denial. Rules are named by their whole path: through an
#   imported name the embedded engine evaluates every rule of that package.
# scope: package
package remit.decision

import rego.v1

# METADATA
# description: Whether it is allowed, why not, what must be done with the result, and the revision of the roles used
# scope: document
# entrypoint: true
result := {"allow": false, "reasons": data.remit.base.reasons, "obligations": [], "revision": revision} if {
	count(data.remit.base.reasons) > 0
} else := {"allow": true, "reasons": [], "obligations": data.remit.roles.obligations, "revision": revision} if {
	data.remit.roles.allow
} else := {"allow": false, "reasons": data.remit.roles.reasons, "obligations": [], "revision": revision}

# METADATA
# description: The revision of the tenant's roles; empty when the tenant is not known
# scope: document
default revision := ""

revision := data.directory[input.subject.properties.tenant].revision
