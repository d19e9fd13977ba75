"""Measure daemon and engine as ratios to a baseline in the same run (`make bench`)."""
