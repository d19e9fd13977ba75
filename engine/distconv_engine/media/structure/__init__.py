"""Check that a file contains all the bytes that its container states, without ffmpeg."""
