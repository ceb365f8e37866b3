"""The `remit` command. Each noun has a module of its own, loaded only when it is asked for."""
