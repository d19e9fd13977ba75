"""The intake's hold on its spool: file work in a thread, one step at a time, tried until it works."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Concatenate, ParamSpec, TypeVar

import trio

from distconv_spool import Owner, SpoolError
from distconvd.errors import ConfigError

_BACKOFF_S_MAX = 30.0

log = logging.getLogger("distconv_plugins.spool_intake")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class SpoolAccess:
    """An `Owner`, opened for the time of a block and called from a thread.

    Args:
        open_owner: opens the spool; blocking.
    """

    def __init__(self, open_owner: Callable[[], Owner]) -> None:
        self._open_owner = open_owner
        self._owner: Owner | None = None
        self._lock = trio.Lock()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Open and lock the spool; raises `ConfigError` when it is no spool, not safe or busy."""
        try:
            self._owner = await trio.to_thread.run_sync(self._open_owner)
        except (SpoolError, OSError) as error:
            raise ConfigError(f"The spool cannot be served: {error}") from error
        try:
            yield
        finally:
            self._owner.close()
            self._owner = None

    async def do(
        self, step: Callable[Concatenate[Owner, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Call a method of the owner, or a function of it; raises what that raises."""
        owner = self._owner
        assert owner is not None, "the spool is opened first"
        async with self._lock:
            return await trio.to_thread.run_sync(lambda: step(owner, *args, **kwargs))


async def retry_until_written(
    step: Callable[[], Awaitable[_T]], wait_s: float, what: str = "spool"
) -> _T:
    """Do a step again, ever more slowly, while the disk refuses it; told once a refusal."""
    last_logged = ""
    while True:
        try:
            return await step()
        except OSError as error:
            if str(error) != last_logged:
                last_logged = str(error)
                log.error(
                    "%s: the disk refuses: %s; nothing is lost, trying again", what, last_logged
                )
        await trio.sleep(wait_s)
        wait_s = min(wait_s * 2, _BACKOFF_S_MAX)
