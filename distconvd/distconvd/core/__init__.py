"""Commit decisions to the store, then publish what happened: ledger, events, archive, metrics."""
