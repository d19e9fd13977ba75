"""Check sources before an encode, and outputs after it."""
