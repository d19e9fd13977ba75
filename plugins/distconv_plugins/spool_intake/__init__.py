"""Turn files that are dropped into a spool into jobs."""
