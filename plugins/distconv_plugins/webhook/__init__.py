"""POST signed events to URLs until each is acknowledged."""
