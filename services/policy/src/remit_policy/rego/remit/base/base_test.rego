package remit.base_test

import data.remit.base
import rego.v1

directory := {"acme": {"revision": "7", "grants": {}, "protected": {}}}

request := {
	"subject": {"type": "user", "id": "u-1", "properties": {"tenant": "acme", "roles": [], "active": true}},
	"action": {"name": "tool.call"},
	"resource": {"type": "tool", "id": "sql", "properties": {"tenant": "acme"}},
	"context": {"time": "2026-01-31T09:30:00.000000Z"},
}

codes(asked) := {reason.code | some reason in reasons} if {
	reasons := base.reasons with input as asked with data.directory as directory
}

patched(path, value) := json.patch(request, [{"op": "add", "path": path, "value": value}])

without(path) := json.patch(request, [{"op": "remove", "path": path}])

test_an_active_user_on_their_own_tenants_resource_meets_no_objection if codes(request) == set()

test_a_resource_of_another_tenant_is_refused if {
	codes(patched("/resource/properties/tenant", "globex")) == {"policy.foreign_tenant"}
}

test_a_resource_without_a_tenant_is_refused if {
	codes(without("/resource/properties/tenant")) == {"policy.foreign_tenant"}
}

test_a_resource_without_properties_is_refused if codes(without("/resource/properties")) == {"policy.foreign_tenant"}

test_a_subject_without_a_tenant_is_refused if {
	codes(without("/subject/properties/tenant")) == {"policy.foreign_tenant", "policy.unknown_tenant"}
}

test_two_sides_that_both_name_null_as_tenant_are_refused if {
	both := json.patch(request, [
		{"op": "add", "path": "/subject/properties/tenant", "value": null},
		{"op": "add", "path": "/resource/properties/tenant", "value": null},
	])
	"policy.foreign_tenant" in codes(both)
}

test_a_tenant_without_data_is_refused if {
	asked := json.patch(request, [
		{"op": "add", "path": "/subject/properties/tenant", "value": "globex"},
		{"op": "add", "path": "/resource/properties/tenant", "value": "globex"},
	])
	codes(asked) == {"policy.unknown_tenant"}
}

test_a_disabled_user_is_refused if codes(patched("/subject/properties/active", false)) == {"policy.inactive_subject"}

test_activity_that_is_not_literally_true_is_refused if {
	every value in [null, 1, "true", "yes", {}, []] {
		codes(patched("/subject/properties/active", value)) == {"policy.inactive_subject"}
	}
}

test_a_user_of_unknown_activity_is_refused if {
	codes(without("/subject/properties/active")) == {"policy.inactive_subject"}
}

test_an_unknown_action_is_refused if codes(patched("/action/name", "tool.steal")) == {"policy.unknown_action"}

test_a_family_is_no_action if codes(patched("/action/name", "tool.*")) == {"policy.unknown_action"}

test_a_request_without_an_action_is_refused if codes(without("/action")) == {"policy.unknown_action"}

test_a_subject_that_is_no_user_is_refused if codes(patched("/subject/type", "service")) == {"policy.unknown_subject"}

test_an_empty_request_meets_every_objection if {
	codes({}) == {
		"policy.foreign_tenant",
		"policy.inactive_subject",
		"policy.unknown_action",
		"policy.unknown_subject",
		"policy.unknown_tenant",
	}
}
