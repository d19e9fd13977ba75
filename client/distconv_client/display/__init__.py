"""Show jobs, engines and progress on a terminal or in plain text."""
