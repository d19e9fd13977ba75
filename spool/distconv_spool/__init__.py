"""The spool directory as a protocol on disk; no daemon, no network."""
