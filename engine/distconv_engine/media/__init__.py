"""Read what a media file really holds: streams, packets, container structure."""
