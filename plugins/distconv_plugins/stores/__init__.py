"""Keep the daemon's state: the stores json (the default), spool and memory."""
