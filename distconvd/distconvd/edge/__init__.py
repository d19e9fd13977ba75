"""The HTTP edge: listeners, connections, routing and problem documents; knows no job."""
