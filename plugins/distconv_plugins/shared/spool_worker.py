"""Do file work in a thread, one step at a time, and retry it until the disk works."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Concatenate, ParamSpec, TypeVar

import trio

from distconv_plugins.shared.os_errors import describe_error
from distconv_spool import Owner, SpoolError
from distconvd.errors import ConfigError

_BACKOFF_S_MAX = 30.0

log = logging.getLogger("distconv_plugins.spool_intake")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class SpoolAccess:
    """An `Owner` that is open for the time of a block and called in a thread.

    Args:
        open_owner: opens the spool; blocking.
    """

    def __init__(self, open_owner: Callable[[], Owner]) -> None:
        self._open_owner = open_owner
        self._owner: Owner | None = None
        self._lock = trio.Lock()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Open and lock the spool; raises `ConfigError` if it is not a spool, not safe or busy."""
        try:
            self._owner = await trio.to_thread.run_sync(self._open_owner)
        except (SpoolError, OSError) as error:
            raise ConfigError(f"The spool cannot be served: {describe_error(error)}") from error
        try:
            yield
        finally:
            self._owner.close()
            self._owner = None

    async def do(
        self, step: Callable[Concatenate[Owner, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Call a method of the owner, or a function that takes it; raises what that raises."""
        owner = self._owner
        assert owner is not None, "the spool is opened first"
        async with self._lock:
            return await trio.to_thread.run_sync(lambda: step(owner, *args, **kwargs))


async def retry_until_written(
    step: Callable[[], Awaitable[_T]], wait_s: float, what: str = "spool"
) -> _T:
    """Retry a step with a growing delay until the disk works; logs each different error once."""
    last_logged = ""
    while True:
        try:
            return await step()
        except OSError as error:
            if describe_error(error) != last_logged:
                last_logged = describe_error(error)
                log.error("%s: disk error: %s; nothing is lost, trying again", what, last_logged)
        await trio.sleep(wait_s)
        wait_s = min(wait_s * 2, _BACKOFF_S_MAX)
