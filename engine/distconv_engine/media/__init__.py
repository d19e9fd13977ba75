"""Read what a media file really contains: streams, packets, container structure."""
