"""Turn drops in a spool into jobs, and ended jobs into results; see docs/spool.md.

The truth is on disk: `claimed/<owner>/` contains the drops that are ours, `accepted/` names the
jobs. What is in memory is rebuilt from there after a crash. `distconv_spool` does the file work,
`drops` submits drops and moves them, `results` writes the records of jobs that have ended.
"""

import grp
import re
import socket
from pathlib import Path
from typing import Annotated, NoReturn, Protocol

import msgspec
import trio

from distconv_plugins.shared.os_errors import describe_error
from distconv_plugins.shared.spool_worker import SpoolAccess, log, retry_until_written
from distconv_plugins.spool_intake.drops import Drops, SubmitClient
from distconv_plugins.spool_intake.results import Jobs, Results
from distconv_spool import OLD_MAX, Disk, Owner, create
from distconvd import hookimpl
from distconvd.errors import ConfigError
from distconvd.hookspecs import (
    DaemonAccess,
    PluginContext,
    Registrar,
    ServiceFactory,
    SettingsRegistrar,
)
from distconvd.plugin_api import Event

DAY_S = 86_400.0
PRUNE_S = 3600.0
"""Time between two searches for files that are old enough to be removed."""


class Submitter(SubmitClient, Jobs, Protocol):
    """The part of the daemon that the intake needs."""


class SpoolIntake:
    """The service; `run` it, and pass it events by `on_event`.

    Args:
        root: the spool's folder; created if it is missing.
        submitter: the daemon.
        owner: the name of this daemon's claims; it must stay with the daemon's state.
        group: id of the group that may submit; None for only the daemon's own user.
        settle_s: how long a file that is written in place must stay the same.
        poll_s: time between two polls of an idle spool.
        keep_days: how long results, accepted and rejected drops are kept; 0: they are never removed.
        disk: another file system, for tests.
    """

    def __init__(
        self,
        root: Path,
        submitter: Submitter,
        *,
        owner: str,
        group: int | None = None,
        settle_s: float = 3.0,
        poll_s: float = 1.0,
        keep_days: float = 365.0,
        disk: Disk | None = None,
    ) -> None:
        self._root = root
        self._poll_s = poll_s
        self._keep_s = keep_days * DAY_S
        self.access = SpoolAccess(
            lambda: Owner(create(root, group=group), owner, group=group, disk=disk)
        )
        self.results = Results(self.access, submitter)
        self.drops = Drops(self.access, submitter, self.results.take_on, settle_s)

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Serve the spool until cancelled; started once it is open and locked.

        Raises:
            ConfigError: it is not a spool, not safe, cannot be opened, or another daemon has this
                owner's name. After a later disk error, which is logged, the work is retried.
        """
        async with self.access.opened(), trio.open_nursery() as nursery:
            nursery.start_soon(self._publish_forever, nursery)
            task_status.started()
            await self._poll_forever()

    def check(self) -> None:
        """Raise `ConfigError` if the path cannot become a spool; changes nothing."""
        if self._root.exists() and not self._root.is_dir():
            raise ConfigError(
                f"spool_dir: {self._root} is not a folder; move it away, or choose another"
                " --spool-dir"
            )

    def on_event(self, event: Event) -> None:
        """Note the end of a job of the spool; called after the event is durable."""
        self.results.on_event(event)

    async def _poll_forever(self) -> NoReturn:
        while True:
            handled = await retry_until_written(
                lambda: self.drops.poll(trio.current_time()), self._poll_s
            )
            if not handled:
                await trio.sleep(self._poll_s)

    async def _publish_forever(self, nursery: trio.Nursery) -> NoReturn:
        await retry_until_written(self.results.catch_up, self._poll_s)
        # Prune only now: a result that is removed during the catch-up would be written again.
        if self._keep_s > 0:
            nursery.start_soon(self._prune_forever)
        while True:
            news = self.results.news()
            await retry_until_written(self.results.publish, self._poll_s)
            await news.wait()

    async def _prune_forever(self) -> NoReturn:
        while True:
            await retry_until_written(self.prune, self._poll_s)
            await trio.sleep(PRUNE_S)

    async def prune(self) -> None:
        """Remove all that has been kept for long enough; after an `OSError`, call it again."""
        while True:
            pruned = await self.access.do(Owner.prune, self._keep_s)
            if pruned.results or pruned.rejections:
                log.info(
                    "spool: old files removed: results: %d, rejections: %d",
                    pruned.results, pruned.rejections,
                )  # fmt: skip
            for error in pruned.failures[:1]:
                log.error(
                    "spool: old files that cannot be removed: %d; the first: %s",
                    len(pruned.failures), describe_error(error),
                )  # fmt: skip
            if max(pruned.results, pruned.rejections) < OLD_MAX:
                return


class SpoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.spool-intake]`; the spool itself is named by `--spool-dir`."""

    owner: str | None = None
    """Name of this daemon's claims, which must stay with its state. Default: the host's name."""
    group: str | None = None
    """The group whose members may submit. Default: only the daemon's own user may."""
    settle_s: Annotated[float, msgspec.Meta(ge=0)] = 3.0
    """How long a file that is written in place must stay the same to count as complete."""
    poll_s: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Time between two polls of an idle spool."""
    keep_days: Annotated[float, msgspec.Meta(ge=0)] = 365.0
    """How long results, accepted and rejected drops are kept. 0: they are never removed."""


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.spool-intake]`."""
    registrar.add("spool-intake", SpoolSettings)


@hookimpl
def distconvd_register_services(registrar: Registrar[ServiceFactory]) -> None:
    """Register the intake, for a daemon that has a spool."""
    registrar.add("spool-intake", _make)


def _make(context: PluginContext, daemon: DaemonAccess) -> SpoolIntake | None:
    if context.spool_dir is None:
        return None
    settings = context.settings("spool-intake", SpoolSettings)
    return SpoolIntake(
        context.spool_dir,
        daemon,
        owner=settings.owner or _host_name(),
        group=None if settings.group is None else _group_id(settings.group),
        settle_s=settings.settle_s,
        poll_s=settings.poll_s,
        keep_days=settings.keep_days,
    )


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("._-")[:64] or "daemon"


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"[plugin.spool-intake] group: there is no group {name!r}.") from None
