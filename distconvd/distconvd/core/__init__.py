"""Commit decisions, then publish their events: ledger, event bus, archive, metrics."""
