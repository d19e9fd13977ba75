"""Provide code that several bundled plugins use."""
