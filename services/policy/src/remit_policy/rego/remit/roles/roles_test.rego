package remit.roles_test

import data.remit.roles
import rego.v1

analyst := {
	"tool.call": {
		"sql": [{"type": "tool", "max_rows": 100}],
		"report:*": [{"type": "tool"}],
		"report:yearly:*": [{"type": "tool", "max_rows": 5}],
	},
	"data.read": {
		"sql": [{"type": "data_source"}],
		"docs": [{"type": "data_source"}],
	},
	"agent.invoke": {"*": [{"type": "agent"}]},
}

directory := {"acme": {
	"revision": "7",
	"grants": {
		"analyst": analyst,
		"auditor": {"data.read": {"sql": [{"type": "data_source"}]}, "field.read": {"sql": [{
			"type": "data_source",
			"fields": ["tailnum"],
		}]}},
		"officer": {"field.read": {"*": [{"type": "*", "fields": ["tailnum", "name"]}]}},
		"senior": {"tool.call": {"sql": [{"type": "tool", "max_rows": 500}]}},
		"unbounded": {"tool.call": {"sql": [{"type": "tool"}]}},
		"north": {"tool.call": {"sql": [{"type": "tool", "row_filter": {
			"column": "region",
			"op": "in",
			"values": ["north"],
		}}]}},
		"south": {"tool.call": {"sql": [{"type": "tool", "row_filter": {
			"column": "region",
			"op": "eq",
			"values": ["south"],
		}}]}},
		"dated": {"tool.call": {"sql": [{"type": "tool", "row_filter": {
			"column": "year",
			"op": "in",
			"values": [2013],
		}}]}},
		"reads_little": {"data.read": {"sql": [{"type": "data_source", "max_rows": 10}]}},
		"root": {"tool.call": {"*": [{"type": "*"}]}, "data.read": {"*": [{"type": "*"}]}},
	},
	"protected": {"sql": ["tailnum", "name"]},
}}

ask(action, type, id, names, properties) := {
	"subject": {"type": "user", "id": "u-1", "properties": {"tenant": "acme", "roles": names, "active": true}},
	"action": {"name": action},
	"resource": {"type": type, "id": id, "properties": object.union({"tenant": "acme"}, properties)},
}

sql(names) := ask("tool.call", "tool", "sql", names, {"data_sources": ["sql"]})

allowed(asked) := answer if {
	answer := roles.allow with input as asked with data.directory as directory
}

codes(asked) := {reason.code | some reason in reasons} if {
	reasons := roles.reasons with input as asked with data.directory as directory
}

obliged(asked, type) := {obligation.properties | some obligation in obligations; obligation.type == type} if {
	obligations := roles.obligations with input as asked with data.directory as directory
}

test_a_granted_tool_whose_source_is_readable_is_allowed if {
	allowed(sql(["analyst"]))
	codes(sql(["analyst"])) == set()
}

test_without_a_role_nothing_is_allowed if {
	not allowed(sql([]))
	codes(sql([])) == {"policy.no_grant", "policy.source_unreadable"}
}

test_an_unknown_role_grants_nothing if not allowed(sql(["ghost"]))

test_a_grant_on_another_type_does_not_count if {
	not allowed(ask("tool.call", "agent", "sql", ["analyst"], {}))
}

test_a_grant_on_another_action_does_not_count if {
	not allowed(ask("agent.invoke", "tool", "sql", ["officer"], {}))
}

test_a_star_grants_every_id if allowed(ask("agent.invoke", "agent", "anything", ["analyst"], {}))

test_a_star_type_grants_every_type if allowed(ask("tool.call", "tool", "whatever", ["root"], {}))

test_a_prefix_grants_what_lies_below_it if {
	allowed(ask("tool.call", "tool", "report:monthly", ["analyst"], {}))
	allowed(ask("tool.call", "tool", "report:monthly:draft", ["analyst"], {}))
}

test_a_prefix_grants_neither_itself_nor_its_look_alikes if {
	not allowed(ask("tool.call", "tool", "report", ["analyst"], {}))
	not allowed(ask("tool.call", "tool", "reports:monthly", ["analyst"], {}))
	not allowed(ask("tool.call", "tool", "reportmonthly", ["analyst"], {}))
}

test_a_grant_of_two_roles_together_suffices if {
	allowed(sql(["senior", "auditor"]))
	not allowed(sql(["senior"]))
	not allowed(sql(["auditor"]))
}

test_every_data_source_must_be_readable if {
	asked := ask("tool.call", "tool", "sql", ["analyst"], {"data_sources": ["sql", "payroll"]})
	not allowed(asked)
	codes(asked) == {"policy.source_unreadable"}
}

test_a_tool_that_reads_nothing_needs_no_source if {
	allowed(ask("tool.call", "tool", "sql", ["analyst"], {"data_sources": []}))
	allowed(ask("tool.call", "tool", "sql", ["analyst"], {}))
}

test_data_sources_that_are_no_list_of_texts_are_refused if {
	every value in ["sql", null, 5, true, {}, {"sql": true}, [1], [null], [["sql"]], ["sql", 1]] {
		not allowed(ask("tool.call", "tool", "sql", ["analyst", "root"], {"data_sources": value}))
		"policy.malformed_resource" in codes(ask("tool.call", "tool", "sql", ["analyst"], {"data_sources": value}))
	}
}

test_a_tenant_without_protected_fields_data_allows_nothing if {
	broken := json.patch(directory, [{"op": "remove", "path": "/acme/protected"}])
	not roles.allow with input as sql(["analyst"]) with data.directory as broken
}

test_protected_fields_are_masked if {
	obliged(sql(["analyst"]), "mask_fields") == {{"fields": ["name", "tailnum"]}}
}

test_fields_that_a_role_may_read_are_not_masked if {
	obliged(sql(["analyst", "auditor"]), "mask_fields") == {{"fields": ["name"]}}
}

test_a_role_that_may_read_all_protected_fields_sees_them if {
	obliged(sql(["analyst", "officer"]), "mask_fields") == set()
}

test_reading_a_source_directly_is_masked_alike if {
	obliged(ask("data.read", "data_source", "sql", ["analyst"], {}), "mask_fields") == {{"fields": ["name", "tailnum"]}}
}

test_a_source_without_protected_fields_masks_nothing if {
	obliged(ask("data.read", "data_source", "docs", ["analyst"], {}), "mask_fields") == set()
}

test_the_largest_row_limit_of_the_roles_counts if {
	obliged(sql(["analyst"]), "max_rows") == {{"limit": 100}}
	obliged(sql(["analyst", "senior"]), "max_rows") == {{"limit": 500}}
}

test_a_grant_without_a_row_limit_lifts_it if obliged(sql(["analyst", "unbounded"]), "max_rows") == set()

test_the_narrower_of_tool_and_source_counts if {
	obliged(sql(["unbounded", "reads_little"]), "max_rows") == {{"limit": 10}}
	obliged(sql(["senior", "reads_little"]), "max_rows") == {{"limit": 10}}
}

test_a_row_filter_that_every_grant_carries_holds if {
	obliged(sql(["north", "auditor"]), "row_filter") == {{"column": "region", "op": "in", "values": ["north"]}}
}

test_filters_on_one_column_are_united if {
	obliged(sql(["north", "south", "auditor"]), "row_filter") == {{
		"column": "region",
		"op": "in",
		"values": ["north", "south"],
	}}
}

test_filters_on_different_columns_all_hold if {
	obliged(sql(["north", "dated", "auditor"]), "row_filter") == {
		{"column": "region", "op": "in", "values": ["north"]},
		{"column": "year", "op": "in", "values": [2013]},
	}
}

test_a_grant_without_a_filter_lifts_it if obliged(sql(["north", "unbounded", "auditor"]), "row_filter") == set()
