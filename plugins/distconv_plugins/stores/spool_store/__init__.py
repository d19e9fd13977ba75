"""Keep each record in a file of its own."""
