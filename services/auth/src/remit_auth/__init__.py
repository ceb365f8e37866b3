"""Who is calling: the auth callout, sessions, and the directory of tenants, users and roles."""
