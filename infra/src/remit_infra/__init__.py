"""How Remit stands up: home directory, keys, the bus's configuration and streams, the processes of `remit up`."""
