"""Load plugins, time their calls, and keep a failing one from harming anything else."""
