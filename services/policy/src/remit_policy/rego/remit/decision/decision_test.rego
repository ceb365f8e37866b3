package remit.decision_test

import data.remit.decision
import rego.v1

directory := {
	"acme": {
		"revision": "7",
		"grants": {"analyst": {
			"tool.call": {"sql": [{"type": "tool", "max_rows": 100}]},
			"data.read": {"sql": [{"type": "data_source"}]},
		}},
		"protected": {"sql": ["tailnum"]},
	},
	"globex": {
		"revision": "3",
		"grants": {"analyst": {"tool.call": {"*": [{"type": "*"}]}, "data.read": {"*": [{"type": "*"}]}}},
		"protected": {},
	},
}

request := {
	"subject": {"type": "user", "id": "u-1", "properties": {"tenant": "acme", "roles": ["analyst"], "active": true}},
	"action": {"name": "tool.call"},
	"resource": {"type": "tool", "id": "sql", "properties": {"tenant": "acme", "data_sources": ["sql"]}},
	"context": {"time": "2026-01-31T09:30:00.000000Z"},
}

decided(asked) := result if {
	result := decision.result with input as asked with data.directory as directory
}

patched(path, value) := json.patch(request, [{"op": "add", "path": path, "value": value}])

test_an_allowed_request_carries_obligations_and_revision_and_no_reason if {
	decided(request) == {
		"allow": true,
		"reasons": [],
		"obligations": {
			{"type": "mask_fields", "properties": {"fields": ["tailnum"]}},
			{"type": "max_rows", "properties": {"limit": 100}},
		},
		"revision": "7",
	}
}

test_what_the_base_refuses_no_role_can_allow if {
	result := decided(patched("/subject/properties/active", false))
	result.allow == false
	{reason.code | some reason in result.reasons} == {"policy.inactive_subject"}
	result.obligations == []
}

test_the_base_hides_what_the_roles_would_have_said if {
	asked := json.patch(request, [
		{"op": "add", "path": "/resource/properties/tenant", "value": "globex"},
		{"op": "add", "path": "/subject/properties/roles", "value": []},
	])
	{reason.code | some reason in decided(asked).reasons} == {"policy.foreign_tenant"}
}

test_another_tenants_grants_are_of_no_use if {
	asked := patched("/resource/id", "payroll")
	result := decided(asked)
	result.allow == false
	{reason.code | some reason in result.reasons} == {"policy.no_grant"}
}

test_the_revision_is_that_of_the_subjects_tenant if {
	asked := json.patch(request, [
		{"op": "add", "path": "/subject/properties/tenant", "value": "globex"},
		{"op": "add", "path": "/resource/properties/tenant", "value": "globex"},
	])
	decided(asked).revision == "3"
	decided(asked).allow == true
}

test_a_tenant_that_is_not_known_has_an_empty_revision if {
	result := decided(patched("/subject/properties/tenant", "initech"))
	result.revision == ""
	result.allow == false
}

test_nothing_asked_is_denied if decided({}).allow == false

test_whatever_is_missing_denies if {
	every path in [
		"/subject",
		"/subject/properties",
		"/subject/properties/roles",
		"/subject/properties/tenant",
		"/subject/properties/active",
		"/action",
		"/action/name",
		"/resource",
		"/resource/type",
		"/resource/id",
		"/resource/properties",
		"/resource/properties/tenant",
	] {
		decided(json.patch(request, [{"op": "remove", "path": path}])).allow == false
	}
}
