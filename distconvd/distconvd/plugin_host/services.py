"""Start the background services of plugins, watch them, and run them again when they fail.

A service that cannot start stops the start of the daemon, and the message names it: it was asked for.
The exception is an `OSError`: a full disk or an absent network passes, and a daemon that does not run
helps nobody. Such a service, like one that fails later, must not stop the daemon, and nobody would
notice its absence: so the failure is logged and counted, and the service is run again after a growing
delay. One that returns has finished its work.
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
from distconvd.plugin_host.watchdog import HookWatch

log = logging.getLogger("distconvd.services")

START_S_MAX = 60.0
"""A service that is not ready after this time has failed to start."""
POLL_S = 0.5
"""How often that is checked."""
AGAIN_S = 1.0
"""The delay after a service's first failure until it is run again; doubled with each further one."""
AGAIN_S_MAX = 300.0
"""The longest such delay; after a run longer than this, the shortest delay applies again."""


class _Run(trio.TaskStatus[None]):
    """One run of a service, which also serves as its `task_status`.

    Args:
        name: the name that the service is registered under.
        service: the service.
        owner: the plugin that registered it.
        watch: names the service in the log if it blocks the event loop.
        task_status: where the start is reported.
    """

    def __init__(
        self,
        name: str,
        service: Service,
        owner: str,
        watch: HookWatch,
        task_status: trio.TaskStatus[None],
    ) -> None:
        self._subject = f"the service {name!r} of plugin {owner!r}"
        self._watch = watch
        self._service = service
        self._task_status = task_status
        self.began_s = trio.current_time()
        self.is_started = False
        self.failure: BaseException | None = None
        """Why it ended, unless it simply returned."""

    def started(self, value: None = None) -> None:
        """Note that the service is ready."""
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
            with self._watch.names_this_task(self._subject):
                await self._service.run(task_status=self)
        except (Exception, SystemExit):
            raise
        except BaseException as error:
            reraise_if_cancelled(error)
            if isinstance(error, GeneratorExit):
                raise  # the loop is being thrown away
            raise HookFault(f"it raised {error!r}") from error

    async def _watch_start(self, scope: trio.CancelScope) -> None:
        """End a service that is not ready in time. The time is real time: a start waits for threads and
        disks, and meanwhile a test's clock jumps."""
        began_s = time.perf_counter()
        while not self.is_started:
            if time.perf_counter() - began_s > START_S_MAX:
                self.failure = RuntimeError(
                    f"it has not called task_status.started() within {START_S_MAX:g} s"
                )
                scope.cancel()
            await trio.sleep(POLL_S)

    def refusal(self) -> ConfigError | StoreError:
        """Return why the daemon cannot start, after the service has failed to start."""
        if isinstance(self.failure, ConfigError | StoreError):
            return self.failure  # its message says what is wrong
        return ConfigError(f"{self._subject} does not start: {self.failure!r}")


async def run_service(
    name: str,
    service: Service,
    failures: Counter[str],
    owner: str,
    watch: HookWatch,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a service until it returns or is cancelled; reports "started" when the service does.

    Args:
        name: the name that it is registered under.
        service: the service.
        failures: counts, by name, how often a service failed after the start.
        owner: the plugin that registered it.
        watch: names it in the log if it blocks the event loop.

    Raises `ConfigError` (or the `StoreError` that it raised) when its first start fails, unless by an
    `OSError`, which is treated as a later failure.
    """
    log.info("service %s starts", name)
    again_s = AGAIN_S
    run = _Run(name, service, owner, watch, task_status)
    await run.to_its_end()
    if not run.is_started:
        if not isinstance(run.failure, OSError):
            raise run.refusal() from run.failure
        task_status.started()
    while run.failure is not None:
        failures[name] += 1
        if trio.current_time() - run.began_s > AGAIN_S_MAX:
            again_s = AGAIN_S
        log.error(
            "service %s failed; it is started again in %.0f s", name, again_s, exc_info=run.failure
        )
        await trio.sleep(again_s)
        again_s = min(again_s * 2, AGAIN_S_MAX)
        run = _Run(name, service, owner, watch, trio.TASK_STATUS_IGNORED)
        await run.to_its_end()
    log.info("service %s has ended", name)


@contextmanager
def plain_refusals() -> Generator[None]:
    """Raise a refusal to start as itself, not inside the exception groups of the nurseries around it.

    Raises `ConfigError` or `StoreError` when it is the only error in a group.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        refusal = unwrap_group(group)
        if isinstance(refusal, ConfigError | StoreError):
            raise refusal from refusal.__cause__
        raise
