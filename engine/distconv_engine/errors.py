"""Define the error that keeps the engine from working at all.

How a single job fails is in `failures`. The engine has its own `ConfigError`: of the daemon's
package it may import `distconvd.model` only, so that an engine can be installed and understood
without the daemon.
"""

EX_CONFIG = 78
"""Of sysexits.h: a restart by the service manager is of no use before somebody has fixed it."""
EX_TEMPFAIL = 75
"""Of sysexits.h: a restart may help."""


class ConfigError(Exception):
    """The configuration is wrong; the engine exits with `exit_code` and this message."""

    def __init__(self, message: str, *, exit_code: int = EX_CONFIG) -> None:
        super().__init__(message)
        self.exit_code = exit_code
