"""The bench (`make bench`): what daemon and engine cost, as ratios to a baseline in the same run."""
