"""Run one attempt from its source to its published output."""
