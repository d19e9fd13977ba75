"""Serve the HTTP API: turn requests into commands and results into replies, by resource."""
