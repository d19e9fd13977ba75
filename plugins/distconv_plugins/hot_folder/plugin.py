"""Turn each stable video in `<watch>/<codec>/…` into a job. See docs/spool.md, Hot folders.

The truth is on disk: the videos, and a record of each order, durable before it is submitted. What
is in memory is rebuilt from there. `tree` scans, `orders` decides and records, `reports` writes
reports for people; this module talks to the daemon.
"""

import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Concatenate, NoReturn, ParamSpec, Protocol, TypeVar

import msgspec
import trio

from distconv_plugins.hot_folder.orders import EndedOrder, OrderBook, OrderId, PendingOrder
from distconv_plugins.hot_folder.settings import LABEL
from distconv_plugins.shared.os_errors import describe_error
from distconv_plugins.shared.spool_worker import retry_until_written
from distconv_spool import Disk, OsDisk, printable
from distconvd import hookimpl
from distconvd.errors import (
    CallerError,
    ConfigError,
    DistconvError,
    NotFound,
    PluginFailed,
    RequestTimeout,
    TooManyRequests,
)
from distconvd.hookspecs import (
    DaemonAccess,
    PluginContext,
    Registrar,
    ServiceFactory,
    SettingsRegistrar,
)
from distconvd.model import TERMINAL_STATUSES, Job
from distconvd.plugin_api import Event

BATCH = 64
"""Orders that are made durable and submitted together."""
WHAT = "hot folder"
_FAILED = "The plugin 'hot-folder' failed on this video; see the daemon's log."
_ENDS = frozenset({"job.completed", "job.failed", "job.cancelled"})
_P = ParamSpec("_P")
_T = TypeVar("_T")

log = logging.getLogger("distconv_plugins.hot_folder")


class Daemon(Protocol):
    """The part of `hookspecs.DaemonAccess` that a hot folder needs."""

    async def submit(self, fields: bytes, *, idempotency_key: str) -> Job:
        """Create a job, durably; the same key always gives the same job."""
        ...

    async def job(self, job_id: str) -> Job:
        """Return a job; raises `NotFound`."""
        ...


class HotFolder:
    """The service; `run` it, and pass it events by `on_event`.

    Args:
        watch: the folder that contains a folder for each codec; it must exist.
        records: the folder of the orders' records; it must stay with the daemon's state.
        daemon: the daemon.
        settle_s: how long a file must stay the same to count as complete.
        poll_s: time between two scans.
        output_roots: folders below which results may go, besides `watch`.
        disk: another file system, for tests.
    """

    def __init__(
        self,
        watch: Path,
        records: Path,
        daemon: Daemon,
        *,
        settle_s: float = 10.0,
        poll_s: float = 5.0,
        output_roots: Sequence[Path] = (),
        disk: Disk | None = None,
    ) -> None:
        self._make_order_book = lambda: OrderBook(
            _checked(watch), records, settle_s, disk or OsDisk(), output_roots
        )
        self._watch = watch
        self._daemon = daemon
        self._poll_s = poll_s
        self._order_book: OrderBook | None = None
        self._lock = trio.Lock()
        self._ended_orders: dict[OrderId, EndedOrder] = {}
        self._news = trio.Event()
        self._logged: set[str] = set()

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Serve the folder until cancelled; started once it is open and locked.

        Raises:
            ConfigError: the folder does not exist, or another daemon serves it.
        """
        async with self.opened(), trio.open_nursery() as nursery:
            nursery.start_soon(self._publish_forever)
            task_status.started()
            await retry_until_written(self.catch_up, self._poll_s, WHAT)
            while True:
                await retry_until_written(
                    lambda: self.poll(trio.current_time()), self._poll_s, WHAT
                )
                await trio.sleep(self._poll_s)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Open and lock the folder for a block; raises `ConfigError`."""
        try:
            self._order_book = await trio.to_thread.run_sync(self._make_order_book)
        except OSError as error:
            raise ConfigError(
                f"The hot folder cannot be served: {describe_error(error)}"
            ) from error
        try:
            yield
        finally:
            self._order_book.close()
            self._order_book = None

    def check(self) -> None:
        """Raise `ConfigError` if the folder does not exist; changes nothing."""
        _checked(self._watch)

    def on_event(self, event: Event) -> None:
        """Note the end of a job of ours; called after the event is durable."""
        if event.kind in _ENDS and event.record is not None:
            self._note_end(msgspec.json.decode(event.record, type=Job))

    async def poll(self, now_s: float) -> int:
        """Scan once and submit what is new; return how many orders were submitted or rejected.

        Args:
            now_s: the present by a monotonic clock; stability is measured with it.

        Raises `OSError` when the watched folder or the records cannot be used; nothing is lost.
        """
        scan = await self._do(OrderBook.scan, now_s)
        troubles, made = set(scan.troubles), 0
        videos = iter(scan.videos)
        while batch := list(islice(videos, BATCH)):
            pending_orders, failed = await self._do(OrderBook.order, batch)
            troubles |= failed
            done = await self._submit(pending_orders)
            made += done
            if done < len(pending_orders):
                break  # the daemon answered "later": the rest waits for the next scan
        self._log_new(troubles)
        return made

    async def catch_up(self) -> None:
        """Continue what the last run left: orders not submitted, ends not reported."""
        await self._do(OrderBook.rewind)
        while (found := await self._do(OrderBook.next_open, BATCH)) is not None:
            for text in sorted(found.troubles):
                log.error("hot folder: %s", text)
            orders = [pending_order for pending_order, job_id in found.orders if job_id is None]
            lost: list[PendingOrder] = []
            for pending_order, job_id in found.orders:
                if job_id is not None and not await self._is_known(job_id):
                    lost.append(pending_order)
            if lost:
                await self._do(OrderBook.forget_jobs, lost)
            await self._submit([*orders, *lost])

    async def publish(self) -> None:
        """Report all ends noted so far; raises `OSError` after trying each, and then loses none."""
        failure: OSError | None = None
        for order_id, ended_order in list(self._ended_orders.items()):
            try:
                path = await self._do(OrderBook.finish, ended_order)
            except OSError as error:
                failure = error  # one bad output folder must not delay the other reports
                continue
            if self._ended_orders.get(order_id) is ended_order:
                del self._ended_orders[order_id]
            if path is not None:
                status = ended_order.job.status.value if ended_order.job else "rejected"
                log.info("hot folder: %s: %s", printable(path), status)
        if failure is not None:
            raise failure

    async def _submit(self, pending_orders: Sequence[PendingOrder]) -> int:
        """Submit orders and record their jobs; return how many were accepted or rejected."""
        made: list[tuple[PendingOrder, Job]] = []
        refused: list[PendingOrder] = []
        async with trio.open_nursery() as nursery:
            for pending_order in pending_orders:
                # The decisions are made one after the other, so that the oldest video becomes the
                # oldest job; the commits are awaited together.
                await nursery.start(self._submit_one, pending_order, made, refused)
        if made:
            await self._do(
                OrderBook.note_jobs, [(pending_order, job.job_id) for pending_order, job in made]
            )
        for pending_order, job in made:
            log.info("hot folder: %s is job %s", printable(pending_order.path), job.job_id)
            self._note_end(job)
        return len(made) + len(refused)

    async def _submit_one(
        self,
        pending_order: PendingOrder,
        made: list[tuple[PendingOrder, Job]],
        refused: list[PendingOrder],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        task_status.started()
        try:
            job = await self._daemon.submit(pending_order.fields, idempotency_key=pending_order.key)
        except (TooManyRequests, RequestTimeout) as error:
            log.debug("hot folder: %s must wait: %s", printable(pending_order.path), error)
        except (CallerError, PluginFailed) as error:
            log.warning("hot folder: %s is rejected: %s", printable(pending_order.path), error)
            refused.append(pending_order)
            self._note(EndedOrder(pending_order.order_id, refusal=error))
        except (DistconvError, OSError) as error:
            reason = describe_error(error)
            log.debug("hot folder: %s must wait: %s", printable(pending_order.path), reason)
        except Exception:
            log.exception("hot folder: the daemon failed on %s", printable(pending_order.path))
            refused.append(pending_order)
            self._note(EndedOrder(pending_order.order_id, refusal=PluginFailed(_FAILED)))
        else:
            made.append((pending_order, job))

    async def _is_known(self, job_id: str) -> bool:
        """Whether the daemon knows this job (not if its state was lost); notes the job's end."""
        try:
            self._note_end(await self._daemon.job(job_id))
        except NotFound:
            return False
        return True

    def _note_end(self, job: Job) -> None:
        order_id = OrderId.maybe_from(job.labels.get(LABEL))
        if order_id is not None and job.status in TERMINAL_STATUSES:
            self._note(EndedOrder(order_id, job))

    def _note(self, ended_order: EndedOrder) -> None:
        self._ended_orders[ended_order.order_id] = ended_order
        self._news.set()

    async def _publish_forever(self) -> NoReturn:
        while True:
            self._news = trio.Event()
            await retry_until_written(self.publish, self._poll_s, WHAT)
            await self._news.wait()

    async def _do(
        self, step: Callable[Concatenate[OrderBook, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Do a step of the order book in a thread, one at a time."""
        order_book = self._order_book
        assert order_book is not None, "the folder is opened first"
        async with self._lock:
            return await trio.to_thread.run_sync(lambda: step(order_book, *args, **kwargs))

    def _log_new(self, troubles: Iterable[str]) -> None:
        """Log each trouble when it begins, not at every scan while it lasts."""
        now = set(troubles)
        for text in sorted(now - self._logged):
            log.error("hot folder: %s", text)
        self._logged = now


class HotFolderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.hot-folder]`."""

    watch: str | None = None
    """The folder that contains a folder for each codec. Default: nothing is watched."""
    settle_s: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    """How long a video must stay the same to count as complete."""
    poll_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    """Time between two scans."""
    output_roots: list[str] = []
    """Folders below which the `output` of a `distconv.toml` may lie, besides the watched one."""


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare the settings."""
    registrar.add("hot-folder", HotFolderSettings)


@hookimpl
def distconvd_register_services(registrar: Registrar[ServiceFactory]) -> None:
    """Register hot folders, for a daemon that has one."""
    registrar.add("hot-folder", _make)


def _make(context: PluginContext, daemon: DaemonAccess) -> HotFolder | None:
    settings = context.settings("hot-folder", HotFolderSettings)
    if settings.watch is None:
        return None
    records = context.state_file.with_name(context.state_file.name + ".hot-folder")
    return HotFolder(
        Path(settings.watch),
        records,
        daemon,
        settle_s=settings.settle_s,
        poll_s=settings.poll_s,
        output_roots=[Path(root).expanduser().absolute() for root in settings.output_roots],
    )


def _checked(watch: Path) -> Path:
    """Return the watched folder without links; raises `ConfigError` if it does not exist.

    It is not created: the empty mount point of a disk that is missing would be served instead.
    """
    real = Path(os.path.realpath(watch.expanduser()))
    if not real.is_dir():
        raise ConfigError(
            f"[plugin.hot-folder] watch: there is no folder {watch}; create it first."
        )
    return real
