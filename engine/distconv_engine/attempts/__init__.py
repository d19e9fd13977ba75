"""An attempt's context, which attempts are active, and their journal on disk."""
