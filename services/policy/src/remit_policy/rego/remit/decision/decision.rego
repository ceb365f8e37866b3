# METADATA
# title: Decision
# description: |
#   The one document that is asked for. The base policy comes first: while it has a reason against the request, nothing
#   else is looked at. Whatever is undefined here counts as a denial.
# scope: package
package remit.decision

import data.remit.base
import data.remit.roles
import rego.v1

# METADATA
# description: Whether it is allowed, why not, what must be done with the result, and the revision of the roles used
# scope: document
# entrypoint: true
result := {"allow": false, "reasons": base.reasons, "obligations": [], "revision": revision} if {
	count(base.reasons) > 0
} else := {"allow": true, "reasons": [], "obligations": roles.obligations, "revision": revision} if {
	roles.allow
} else := {"allow": false, "reasons": roles.reasons, "obligations": [], "revision": revision}

# METADATA
# description: The revision of the tenant's roles; empty when the tenant is not known
# scope: document
default revision := ""

revision := data.directory[input.subject.properties.tenant].revision
