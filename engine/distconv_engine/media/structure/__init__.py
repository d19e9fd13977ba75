"""Check that a file holds all the bytes that its container states, without ffmpeg."""
