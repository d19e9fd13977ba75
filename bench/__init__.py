"""The bench (`make bench`): what the daemon costs, as ratios to a baseline in the same run."""
