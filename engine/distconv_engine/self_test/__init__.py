"""Convert a tiny clip of each kind of source, to know what this engine's ffmpeg can do."""
