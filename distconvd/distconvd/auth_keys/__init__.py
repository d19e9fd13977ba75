"""Manage API keys: the key file, and rate limits for wrong keys and for requests."""
