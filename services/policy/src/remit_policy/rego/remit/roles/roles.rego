# METADATA
# title: Roles
# description: |
#   What the subject's roles grant. `data.directory[tenant]` is prepared whenever the tenant's roles change: inheritance is
#   resolved and families of actions are spelled out, so that a decision reads `grants[role][action][key]` at once, where a
#   key is a resource id, `*` or `prefix:*`. It is bound once and read by `object.get`: each `data.a[b][c]` inside a loop
#   costs the embedded engine four times as much.
# scope: package
package remit.roles

import rego.v1

# METADATA
# description: |
#   Allowed when some role grants the action, and the reading of every data source. Said positively: were it "no reasons",
#   whatever is undefined would allow.
# scope: document
default allow := false

allow if {
	well_formed
	is_object(directory.protected)
	count(required) == count(sources) + 1
	every granted in required {
		count(granted) > 0
	}
}

# METADATA
# description: Why the roles do not suffice
# scope: document
reasons contains {"code": "policy.no_grant", "message": message} if {
	count(required[0]) == 0
	message := sprintf(
		"none of your roles grants %s on %s %s",
		[input.action.name, input.resource.type, input.resource.id],
	)
}

reasons contains {"code": "policy.source_unreadable", "message": message} if {
	some i, source in sources
	count(required[i + 1]) == 0
	message := sprintf("none of your roles may read the data source %s", [source])
}

reasons contains {"code": "policy.malformed_resource", "message": "data_sources must be a list of ids"} if {
	not well_formed
}

# METADATA
# description: What must be done with the result of an allowed action
# scope: document
obligations contains {"type": "mask_fields", "properties": {"fields": sort(masked)}} if {
	masked := {field |
		some source in array.concat(sources, [input.resource.id | input.resource.type == "data_source"])
		protected := object.get(directory.protected, source, [])
		count(protected) > 0
		readable := unmasked(source)
		some field in protected
		not field in readable
	}
	count(masked) > 0
}

obligations contains {"type": "max_rows", "properties": {"limit": min(limits)}} if {
	limits := [max(bounds) |
		some granted in required
		bounds := [grant.max_rows | some grant in granted]
		count(bounds) > 0
		count(bounds) == count(granted)
	]
	count(limits) > 0
}

obligations contains {"type": "row_filter", "properties": {"column": column, "op": "in", "values": sort(values)}} if {
	some granted in required
	filters := [grant.row_filter | some grant in granted]
	count(filters) == count(granted)
	some column in {filter.column | some filter in filters}
	values := {value | some filter in filters; filter.column == column; some value in filter.values}
}

# METADATA
# description: |
#   The grants that meet each need: that of the action itself first, then those of the data sources, in their order. Within
#   one need the widest grant counts, between needs the narrowest. A need whose grants filter different columns yields a
#   filter for each: narrower than any one of them, never wider.
# scope: document
required := array.concat(
	[grants_for(input.action.name, input.resource.type, input.resource.id)],
	[grants_for("data.read", "data_source", source) | some source in sources],
)

# METADATA
# description: The data sources that a tool would read, as far as they are ids; without the property, none
# scope: document
sources := [source |
	listed := object.get(input.resource.properties, "data_sources", [])
	is_array(listed)
	some source in listed
	is_string(source)
]

# METADATA
# description: No data_sources, or a list of texts
# scope: document
well_formed if {
	listed := object.get(input.resource.properties, "data_sources", [])
	is_array(listed)
	count(listed) == count(sources)
}

# METADATA
# description: The protected fields of a data source that the roles may read
# scope: document
unmasked(source) := {field |
	some grant in grants_for("field.read", "data_source", source)
	some field in grant.fields
}

# METADATA
# description: What the roles grant for an action on a resource
# scope: document
grants_for(action, type, id) := [grant |
	some role in input.subject.properties.roles
	by_key := object.get(directory.grants, [role, action], {})
	some key in keys(id)
	some grant in by_key[key]
	grant.type in [type, "*"]
]

# METADATA
# description: The keys under which a grant on an id may stand - itself, `*`, and `prefix:*` of each of its prefixes
# scope: document
keys(id) := [id, "*"] if not contains(id, ":")

keys(id) := array.concat([id, "*"], prefixes) if {
	contains(id, ":")
	parts := split(id, ":")
	prefixes := [concat(":", array.concat(array.slice(parts, 0, i), ["*"])) | some i in numbers.range(1, count(parts) - 1)]
}

# METADATA
# description: The subject's own tenant's roles
# scope: document
directory := data.directory[input.subject.properties.tenant]
