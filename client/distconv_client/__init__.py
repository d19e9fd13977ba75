"""The API client and the `distconv` command."""
