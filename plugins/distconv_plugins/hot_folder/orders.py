"""Decide which videos of a hot folder to order, and record what became of each order.

All methods block, one call at a time; each may be interrupted anywhere and called again. The
decision about a video:

- never seen: order it;
- ordered from this path: it is known;
- ordered from another path where it no longer is: it was moved, and is known; unless it was moved
  under its running job, which failed because of that: order it again;
- ordered from another path where it still is: this is a copy; order it like any other file;
- ordered for another codec, or under other settings whose folder still exists: the person who
  moved it here wants it done this way too; order it.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

import msgspec

from distconv_plugins.hot_folder.names import SETTINGS_NAME
from distconv_plugins.hot_folder.records import (
    Order,
    Record,
    Records,
    maybe_fingerprint,
    replace_file,
)
from distconv_plugins.hot_folder.reports import write_report
from distconv_plugins.hot_folder.settings import is_within, submission
from distconv_plugins.hot_folder.tree import Scan, Tree, Video
from distconv_plugins.shared.os_errors import describe_error
from distconv_spool import Disk, mint_key, printable
from distconvd.errors import DistconvError
from distconvd.model import Job

PROBLEM_NAME = SETTINGS_NAME + ".problem.json"
_FAILED = "failed_permanently"


class OrderId(NamedTuple):
    """Names an order: its record and its index there. The job carries it as label `hot-folder`."""

    record: str
    at: int

    def __str__(self) -> str:
        return f"{self.record}.{self.at}"

    @classmethod
    def maybe_from(cls, label: str | None) -> "OrderId | None":
        """Return the order that a label names; None for a label that is not ours."""
        record, _, at = (label or "").partition(".")
        if len(record) != 32 or not record.isalnum() or not at.isdecimal() or len(at) > 9:
            return None
        return cls(record, int(at))


class PendingOrder(NamedTuple):
    """An order that is to be submitted, perhaps not for the first time."""

    order_id: OrderId
    key: str
    fields: bytes
    path: str
    """For the log."""
    video: Video | None = None
    """The video of this scan that it was ordered for; None for an order read from disk."""


class EndedOrder(NamedTuple):
    """An order that has ended: its job did, or the daemon rejected it."""

    order_id: OrderId
    job: Job | None = None
    refusal: DistconvError | None = None


class OpenOrders(NamedTuple):
    """Orders that have not ended."""

    orders: list[tuple[PendingOrder, str | None]]
    """Orders, and the ids of their jobs where they are known."""
    troubles: set[str]
    """Errors of records that cannot be read."""


class OrderBook:
    """See the module.

    Args:
        watch: the watched folder, absolute and without links.
        folder: where the records are.
        settle_s: how long a file must stay the same.
        disk: the file system.

    Resource handling: keeps the records locked until `close`.
    """

    def __init__(
        self,
        watch: Path,
        folder: Path,
        settle_s: float,
        disk: Disk,
        roots: Sequence[Path] = (),
    ) -> None:
        self._roots = [watch, *roots]
        self._watch = watch
        self._disk = disk
        self._records = Records(folder, watch, disk)
        try:
            self._outputs = self._records.outputs()
        except BaseException:
            self.close()
            raise
        self._tree = Tree(watch, disk, settle_s, self._outputs, roots)
        self._wrong: dict[str, str] = {}
        self._right: set[str] = set()
        self._names: Iterator[str] = iter(())

    def close(self) -> None:
        """Let another process serve the folder."""
        self._records.close()

    def scan(self, now_s: float) -> Scan:
        """Scan the tree; write problems next to wrong settings."""
        scan = self._tree.scan(now_s)
        inside = {os.path.realpath(r.base) for r in self._tree.output_rules() if not r.is_remote}
        inside = {base for base in inside if is_within(base, str(self._watch))}
        if inside - self._outputs:
            # Before the first result can be there: later settings may no longer name this folder.
            self._records.write_outputs(self._outputs | inside)
            self._outputs |= inside
        self._write_problems(scan)
        return scan

    def order(self, videos: Iterable[Video]) -> tuple[list[PendingOrder], set[str]]:
        """Decide about videos; return what is to be submitted now, and what went wrong.

        The returned orders are durable: each will only ever be submitted under its one key.
        """
        pending_orders: dict[OrderId, PendingOrder] = {}
        troubles: set[str] = set()
        for video in videos:
            try:
                pending_order = self._decide(video)
            except (OSError, RecursionError, TypeError, ValueError) as error:
                troubles.add(f"{printable(video.path)}: {describe_error(error)}")
                continue
            if pending_order is not None:
                pending_orders[pending_order.order_id] = pending_order
        if pending_orders:
            self._records.sync()
        return list(pending_orders.values()), troubles

    def note_jobs(self, submitted: Iterable[tuple[PendingOrder, str]]) -> None:
        """Record the jobs of submitted orders: pairs of an order and a job's id."""
        for pending_order, job_id in submitted:
            record = self._require(pending_order.order_id)
            order = record.orders[pending_order.order_id.at]
            if order.job_id != job_id:
                order = msgspec.structs.replace(order, job_id=job_id)
                self._records.write(
                    pending_order.order_id.record,
                    record.with_order(pending_order.order_id.at, order),
                )
        self._records.sync()
        for pending_order, _ in submitted:
            if pending_order.video is not None:
                self._tree.know(pending_order.video)

    def rewind(self) -> None:
        """Let `next_open` begin with the first record."""
        self._names = self._records.names()

    def next_open(self, limit: int) -> OpenOrders | None:
        """Return the open orders of the next `limit` records; None when there are no more records.

        Each call continues where the last one ended.
        """
        names = list(islice(self._names, limit))
        if not names:
            return None
        found = OpenOrders([], set())
        for name in names:
            try:
                record = self._records.maybe_read(name)
            except OSError as error:
                found.troubles.add(describe_error(error))
                continue
            for at, order in enumerate(record.orders if record else []):
                if order.outcome is None:
                    found.orders.append((_pending_order(OrderId(name, at), order), order.job_id))
        return found

    def forget_jobs(self, pending_orders: Iterable[PendingOrder]) -> None:
        """Forget the jobs of orders whose jobs the daemon no longer knows: its state was lost."""
        for pending_order in pending_orders:
            record = self._require(pending_order.order_id)
            order = msgspec.structs.replace(record.orders[pending_order.order_id.at], job_id=None)
            self._records.write(
                pending_order.order_id.record, record.with_order(pending_order.order_id.at, order)
            )
        self._records.sync()

    def finish(self, ended_order: EndedOrder) -> str | None:
        """Write the report of an ended order and record that it has ended; return the video's path.

        Raises `OSError` when the report cannot be written; call it again then.
        """
        record = self._records.maybe_read(ended_order.order_id.record)
        if record is None or ended_order.order_id.at >= len(record.orders):
            return None  # a label that somebody else set, or the record is another daemon's
        order = record.orders[ended_order.order_id.at]
        if ended_order.job is not None and order.job_id not in (None, ended_order.job.job_id):
            return None  # somebody else has submitted a job with this label
        write_report(
            self._disk,
            order,
            record.size_bytes,
            ended_order.job,
            ended_order.refusal,
            self._roots,
        )
        status = "rejected" if ended_order.job is None else ended_order.job.status.value
        order = msgspec.structs.replace(
            order,
            outcome=status,
            job_id=order.job_id if ended_order.job is None else ended_order.job.job_id,
            was_source_gone=not self._is_at(record, order.path),
        )
        self._records.write(
            ended_order.order_id.record, record.with_order(ended_order.order_id.at, order)
        )
        self._records.sync()
        return _decoded(order.path)

    def _decide(self, video: Video) -> PendingOrder | None:
        name = maybe_fingerprint(self._watch, video.observed)
        if name is None:
            return None  # it changed or disappeared since it was stable: the next scan decides
        record = self._records.maybe_read(name)
        if record is None:
            record = Record(video.observed.size_bytes, video.observed.mtime_ns)
        place = quote(os.fsencode(video.path))
        for at, order in enumerate(record.orders):
            if order.path == place:
                return self._reuse_order(OrderId(name, at), order, video)
        for at, order in reversed([*enumerate(record.orders)]):
            if self._was_moved(record, order, video):
                return self._move_order(OrderId(name, at), record, video)
        return self._add_order(name, record, video)

    def _was_moved(self, record: Record, order: Order, video: Video) -> bool:
        """Whether this is the video of that order, moved to another path."""
        if order.codec != video.path.partition("/")[0] or self._is_at(record, order.path):
            return False
        # A renamed folder takes its settings along: then no folder has the old name.
        return order.output_rule == quote(
            os.fsencode(video.output_rule.path)
        ) or not self._is_there(_decoded(order.output_rule))

    def _move_order(self, order_id: OrderId, record: Record, video: Video) -> PendingOrder | None:
        order = record.orders[order_id.at]
        if order.outcome is None:
            # Its job may fail because of the move. Until it has ended there is nothing to decide.
            return _pending_order(order_id, order) if order.job_id is None else None
        if order.outcome == _FAILED and order.was_source_gone:
            return self._add_order(order_id.record, record, video)
        order = msgspec.structs.replace(order, path=quote(os.fsencode(video.path)))
        self._records.write(order_id.record, record.with_order(order_id.at, order))
        self._tree.know(video)
        return None

    def _reuse_order(self, order_id: OrderId, order: Order, video: Video) -> PendingOrder | None:
        if order.job_id is None and order.outcome is None:
            return _pending_order(order_id, order, video)
        self._tree.know(video)
        return None

    def _add_order(self, name: str, record: Record, video: Video) -> PendingOrder:
        order_id = OrderId(name, len(record.orders))
        order = self._make_order(order_id, video)
        self._records.write(name, record.with_order(order_id.at, order))
        return _pending_order(order_id, order, video)

    def _make_order(self, order_id: OrderId, video: Video) -> Order:
        output_rule = video.output_rule
        url = "file://" + quote(os.fsencode(self._watch / video.path))
        job = submission(output_rule, url, video.observed.size_bytes, video.folder, str(order_id))
        report_folder = output_rule.output_folder(self._watch, video.folder)
        return Order(
            path=quote(os.fsencode(video.path)),
            output_rule=quote(os.fsencode(output_rule.path)),
            codec=job.target_codec,
            key=mint_key(),
            fields=msgspec.to_builtins(job),
            report_folder=quote(os.fsencode(report_folder)),
        )

    def _require(self, order_id: OrderId) -> Record:
        record = self._records.maybe_read(order_id.record)
        if record is None:
            raise FileNotFoundError(2, f"the record {order_id.record} has been removed")
        return record

    def _is_at(self, record: Record, path: str) -> bool:
        try:
            status = self._disk.lstat(self._watch / _decoded(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (status.st_size, status.st_mtime_ns) == (record.size_bytes, record.mtime_ns)

    def _is_there(self, path: str, name: str = "") -> bool:
        try:
            self._disk.lstat(self._watch / path / name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _write_problems(self, scan: Scan) -> None:
        """Keep a problem file next to each wrong `distconv.toml`, and remove it when it is fixed."""
        right = {output_rule.path for output_rule in self._tree.output_rules()}
        written: dict[str, str] = {}
        for folder, why in self._wrong.items():
            if folder not in scan.wrong and folder not in right:
                if self._is_there(folder, SETTINGS_NAME):
                    written[folder] = why  # it is being edited, or cannot be read at the moment
                else:
                    self._remove(self._watch / folder / PROBLEM_NAME)
        # Settings that are right for the first time may have been fixed while no service ran.
        for folder in right - self._right:
            self._remove(self._watch / folder / PROBLEM_NAME)
        for folder, why in scan.wrong.items():
            is_written = self._wrong.get(folder) == why
            if is_written or self._write_problem(self._watch / folder, why, scan):
                written[folder] = why
        self._right, self._wrong = right, written

    def _write_problem(self, folder: Path, why: str, scan: Scan) -> bool:
        """Write the problem file, and return whether it is there now."""
        scan.troubles.add(f"{printable(str(folder / SETTINGS_NAME))} is not applied: {why}")
        title = f"This {SETTINGS_NAME} is wrong; its videos wait until it is fixed."
        problem = {"title": title, "detail": why}
        data = json.dumps(problem, indent=2).encode("ascii") + b"\n"
        try:
            replace_file(
                self._disk, folder / PROBLEM_NAME, folder / ".distconv-problem.distconv-part", data
            )
        except OSError as error:
            scan.troubles.add(f"{printable(str(folder / PROBLEM_NAME))}: {error.strerror}")
            return False
        return True

    def _remove(self, path: Path) -> None:
        try:
            self._disk.unlink(path)
        except OSError:
            pass  # somebody else removed it, or the whole folder is gone


def _pending_order(order_id: OrderId, order: Order, video: Video | None = None) -> PendingOrder:
    fields = msgspec.json.encode(order.fields)
    return PendingOrder(order_id, f"hot-{order.key}", fields, _decoded(order.path), video)


def _decoded(path: str) -> str:
    return os.fsdecode(unquote_to_bytes(path))
