"""The transcoding engine: drives ffmpeg and never calls a bad file a success."""
