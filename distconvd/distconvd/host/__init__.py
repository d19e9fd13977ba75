"""This process and the system below it: clock, logs, systemd, files that hold a secret."""
