"""Background services, as a plugin offers them: started, watched, and run again when they fail.

A service that cannot start stops the start, with its name: it was asked for. One that fails later
must not take the daemon with it, and nobody would notice if it stayed away: so it is logged, counted,
and run again, ever more slowly. One that returns has done what it is for.
"""

import logging
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

import trio

from distconvd.errors import ConfigError, StoreError
from distconvd.faults import HookFault, reraise_if_cancelled, unwrap_group
from distconvd.hookspecs import Service

log = logging.getLogger("distconvd.services")

START_S_MAX = 60.0
"""A service that is not ready after this does not start."""
POLL_S = 0.5
"""Time between two looks at that."""
AGAIN_S = 1.0
"""How long after its first failure a service is run again; doubled with each one that follows."""
AGAIN_S_MAX = 300.0
"""The longest such time; a service that ran for longer than this begins anew with the shortest."""


class _Run(trio.TaskStatus[None]):
    """One run of a service, and what it is given as its `task_status`.

    Args:
        name: what the service is offered under.
        service: the service.
        owner: the plugin that offers it.
        task_status: is told when it has started.
    """

    def __init__(
        self, name: str, service: Service, owner: str, task_status: trio.TaskStatus[None]
    ) -> None:
        self._subject = f"the service {name!r} of plugin {owner!r}"
        self._service = service
        self._task_status = task_status
        self.began_s = trio.current_time()
        self.is_started = False
        self.failure: BaseException | None = None
        """Why it ended, where it has not simply returned."""

    def started(self, value: None = None) -> None:
        """Hear from the service that it is ready."""
        self._task_status.started()
        self.is_started = True

    async def to_its_end(self) -> None:
        """Return when the service has returned, has failed, or has not started in time."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_start, nursery.cancel_scope)
                await self._run_service()
                nursery.cancel_scope.cancel()
                if not self.is_started:
                    raise RuntimeError("it returned without calling task_status.started()")
        except* (Exception, SystemExit) as group:  # noqa: BLE001 - a plugin may raise anything
            self.failure = unwrap_group(group)

    async def _run_service(self) -> None:
        try:
            await self._service.run(task_status=self)
        except (Exception, SystemExit):
            raise
        except BaseException as error:
            reraise_if_cancelled(error)
            if isinstance(error, GeneratorExit):
                raise  # the loop is being thrown away
            raise HookFault(f"it raised {error!r}") from error

    async def _watch_start(self, scope: trio.CancelScope) -> None:
        """End a service that is not ready in time; of real time, as a start waits for threads and
        disks, and a test's clock jumps while it does."""
        began_s = time.perf_counter()
        while not self.is_started:
            if time.perf_counter() - began_s > START_S_MAX:
                self.failure = TimeoutError(
                    f"it has not called task_status.started() within {START_S_MAX:g} s"
                )
                scope.cancel()
            await trio.sleep(POLL_S)

    def refusal(self) -> ConfigError | StoreError:
        """Return why the daemon does not start, where the service has not."""
        if isinstance(self.failure, ConfigError | StoreError):
            return self.failure  # it says by itself what is wrong
        return ConfigError(f"{self._subject} does not start: {self.failure!r}")


async def run_service(
    name: str,
    service: Service,
    failures: Counter[str],
    owner: str,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a service until it returns, or until cancelled; started once it is.

    Args:
        name: what it is offered under.
        service: the service.
        failures: counts, by name, how often a service failed after the start.
        owner: the plugin that offers it.

    Raises `ConfigError` (or the `StoreError` that it raised) when it does not start at first.
    """
    log.info("service %s starts", name)
    again_s = AGAIN_S
    run = _Run(name, service, owner, task_status)
    await run.to_its_end()
    if not run.is_started:
        raise run.refusal() from run.failure
    while run.failure is not None:
        failures[name] += 1
        if trio.current_time() - run.began_s > AGAIN_S_MAX:
            again_s = AGAIN_S
        log.error("service %s failed; run again in %.0f s", name, again_s, exc_info=run.failure)
        await trio.sleep(again_s)
        again_s = min(again_s * 2, AGAIN_S_MAX)
        run = _Run(name, service, owner, trio.TASK_STATUS_IGNORED)
        await run.to_its_end()
    log.info("service %s has ended", name)


@contextmanager
def plain_refusals() -> Generator[None]:
    """Let a refusal to start out of a block as itself, not in the groups of the nurseries round it.

    Raises `ConfigError` or `StoreError` where there is one and nothing else in a group.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        refusal = unwrap_group(group)
        if isinstance(refusal, ConfigError | StoreError):
            raise refusal from refusal.__cause__
        raise
