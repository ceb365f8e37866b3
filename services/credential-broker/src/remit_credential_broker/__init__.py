"""With whose credential: the vault, users' keys, connections to outside systems, and leases on them."""
