"""What keeps the engine from working at all; how a single job fails is in `failures`.

The engine has its own `ConfigError`: of the daemon's package it may import the vocabulary only, so
that an engine can be installed and understood without the daemon.
"""

EX_CONFIG = 78
"""Of sysexits.h: the service manager need not start it again before somebody has mended it."""


class ConfigError(Exception):
    """The configuration is wrong; the engine exits with `exit_code` and this message."""

    def __init__(self, message: str, *, exit_code: int = EX_CONFIG) -> None:
        super().__init__(message)
        self.exit_code = exit_code
