"""Serve HTTP: listeners, connections, routing and problem documents. It knows nothing of jobs."""
