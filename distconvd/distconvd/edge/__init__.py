"""Serve HTTP: listeners, connections, routing and problem documents; nothing about jobs."""
