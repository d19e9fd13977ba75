"""Find, start, watch and stop ffmpeg and ffprobe."""
