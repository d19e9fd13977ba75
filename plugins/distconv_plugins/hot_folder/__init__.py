"""Turn videos that appear in watched folders into jobs."""
