"""Time the running commit, and warn about one that takes long: all changes wait for it."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import trio

log = logging.getLogger("distconvd.ledger")

COMMIT_LONG_S = 10.0
"""A commit that takes longer is logged as a warning, and the daemon counts as not ready."""
WATCH_S = 1.0


class CommitWatch:
    """See the module."""

    def __init__(self) -> None:
        self._began_s: float | None = None

    @contextmanager
    def timed(self) -> Generator[None]:
        """Count the body as the running commit."""
        self._began_s = trio.current_time()
        try:
            yield
        finally:
            self._began_s = None

    @property
    def running_s(self) -> float:
        """How long the present commit has been running; 0.0 if there is none."""
        return 0.0 if self._began_s is None else trio.current_time() - self._began_s

    @property
    def is_long(self) -> bool:
        """Whether a commit has been running for too long."""
        return self.running_s > COMMIT_LONG_S

    async def run(self) -> NoReturn:
        """Log a warning, once each, about commits that take long."""
        last_logged_s: float | None = None
        while True:
            if self.is_long and self._began_s != last_logged_s:
                last_logged_s = self._began_s
                log.warning(
                    "a commit has taken %.0f s and is still running; changes wait for it",
                    self.running_s,
                )
            await trio.sleep(WATCH_S)
