"""Turn files dropped in a spool into jobs."""
