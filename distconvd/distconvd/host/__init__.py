"""Use the process and the system below it: clock, logs, systemd, secret files."""
