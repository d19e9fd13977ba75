"""The json store: a readable state file and a journal next to it."""
