"""Plan an encode, write its ffmpeg command and run it."""
