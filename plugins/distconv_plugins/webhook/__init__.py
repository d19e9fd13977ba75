"""POST events to URLs, signed, until each is acknowledged."""
