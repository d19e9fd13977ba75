"""Talk to the daemon: HTTP, websocket, heartbeats and reports."""
