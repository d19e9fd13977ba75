"""The HTTP API: one module a resource; turns requests into commands and results into replies."""
