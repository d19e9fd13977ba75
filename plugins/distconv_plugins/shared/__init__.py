"""What several bundled plugins use."""
