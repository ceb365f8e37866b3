"""With whose credential: the vault, users' data keys, connections, and leases of one credential for one action."""
