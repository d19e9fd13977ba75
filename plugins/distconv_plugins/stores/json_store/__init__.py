"""Keep the state in a readable JSON file with a journal next to it."""
