"""Implement the subcommands of `distconvd` that work on a configuration or a store."""
