"""The `kws` command: a module per group of commands."""
