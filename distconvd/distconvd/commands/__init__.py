"""The subcommands of `distconvd` that work on a configuration or a store."""
