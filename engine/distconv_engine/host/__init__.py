"""Find out what this machine can do and has left: encoders, speed, disk space, systemd."""
