"""The spool store: one file for each record."""
