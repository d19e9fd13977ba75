"""The ledger: decides, commits, tells, in this order and no other.

Group commit: while one batch is being written, the decisions that arrive fill the next one, so a
busy disk costs each request a part of one fsync. Memory runs ahead of the disk, but nobody is told:
a reply waits for the batch that holds the last change of anything that it shows.

A failed commit takes back the batch and everything decided on top of it, newest first, so that
memory equals disk again; their requests get `CommitFailed` (503). Until a probe has been committed
the ledger refuses changes; reads go on.

A commit is never cancelled on the way, but for one thing: `abandon` gives up one that does not end, when
the daemon has to. Nothing of it has been acknowledged.
"""

import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Concatenate, NoReturn, ParamSpec, TypeVar

import trio

from distconvd.dispatch import Decision, Dispatcher, Event, Instant
from distconvd.dispatch.transaction import Transaction
from distconvd.errors import CommitFailed, DistconvError, StoreError
from distconvd.faults import reraise_if_cancelled
from distconvd.store import Change, Store, Table

log = logging.getLogger("distconvd.ledger")

P = ParamSpec("P")
T = TypeVar("T")

PROBE_INTERVAL_S = 0.5
COMMIT_LONG_S = 10.0
"""A commit that takes longer is warned of, and the daemon counts as not ready."""
WATCH_S = 1.0
PROBE_KEY = "store_probe"


class _Abandoned(StoreError):
    """A commit did not end, and the daemon has to."""

    def __init__(self) -> None:
        super().__init__("a commit of the store has not ended and is abandoned")


class _Batch:
    """Decisions that become durable together."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.rollback_changes: list[Sequence[Change]] = []
        self.events: list[Event] = []
        self.keys: set[tuple[Table, str]] = set()
        self.finished = trio.Event()
        self.has_failed = False

    def add(self, decision: Decision[T]) -> None:
        self.changes.extend(decision.changes)
        self.rollback_changes.append(decision.rollback_changes)
        self.events.extend(decision.events)
        self.keys.update((change.table, change.key) for change in decision.changes)


class Ledger:
    """Runs commands; see the module.

    Args:
        dispatcher: decides.
        store: makes durable; already loaded.
        tell: called with the events of each batch once they are durable; must not wait.
        clock: the present moment.
        observe: called after each commit with its number of changes and its duration (s).
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: Store,
        publish: Callable[[Sequence[Event]], None],
        clock: Callable[[], Instant],
        observe: Callable[[int, float], None] = lambda changes, duration_s: None,
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._publish = publish
        self._clock = clock
        self._observe = observe
        self._filling = _Batch()
        self._writing: _Batch | None = None
        self._work = trio.Event()
        self._is_closing = False
        self.ended = trio.Event()
        """Set when `run` has."""
        self._scope: trio.CancelScope | None = None
        self._commit_began_s: float | None = None
        self.is_abandoned = False
        self.failure: str | None = None
        """Why the last commit failed, while the store has not recovered; None: all is well."""

    async def execute(
        self,
        command: Callable[Concatenate[Transaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a command and return its reply once all that it shows is durable.

        Raises what the command raises, once all that the refusal rests on is durable, and
        `CommitFailed` when its changes could not be stored. A command that changes nothing and
        saw what was then taken back is run again.
        """
        transactions: list[Transaction] = []

        def recorded(tx: Transaction) -> T:
            transactions.append(tx)
            return command(tx, *args, **kwargs)

        while True:
            try:
                decision = self._dispatcher.decide(recorded, self._clock())
            except DistconvError:
                tx = transactions.pop()
                if await self._wait_durable(self._last_in_flight(tx.read_set, tx.reads_all)):
                    raise
                continue
            if not decision.is_read:
                await self.commit_decision(decision)
                return decision.reply
            batch = self._last_in_flight(decision.read_set, decision.reads_all)
            self._enqueue(decision)
            if await self._wait_durable(batch):
                return decision.reply

    def execute_nowait(
        self,
        command: Callable[Concatenate[Transaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a command that reveals nothing to anybody; what it changes is committed later."""
        decision = self._dispatcher.decide(command, self._clock(), *args, **kwargs)
        if decision.changes and self.failure is not None:
            self._dispatcher.rollback(decision.rollback_changes)
        else:
            self._enqueue(decision)
        return decision.reply

    async def commit_decision(self, decision: Decision[T]) -> None:
        """Wait until a decision is durable; call it right after `decide`, with no wait between."""
        if decision.changes and self.failure is not None:
            self._dispatcher.rollback(decision.rollback_changes)
            raise _commit_failed(self.failure)
        self._enqueue(decision)
        if decision.changes:
            batch: _Batch | None = self._filling
        else:
            batch = self._last_in_flight(decision.read_set, decision.reads_all)
        if not await self._wait_durable(batch):
            raise _commit_failed(self.failure or "the commit failed")

    def _enqueue(self, decision: Decision[T]) -> None:
        """Put a decision into the batch that is being filled."""
        if decision.changes:
            self._filling.add(decision)
            self._work.set()
        elif decision.events:
            self._publish_later(decision.events)

    async def _wait_durable(self, batch: _Batch | None) -> bool:
        """Wait for a batch; return whether it is durable (None: nothing to wait for)."""
        if batch is not None:
            await batch.finished.wait()
        return batch is None or not batch.has_failed

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit batch after batch until `close`; what is decided by then is committed first."""
        task_status.started()
        try:
            await self._run()
        finally:
            self.ended.set()

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            if self.failure is not None:
                await self._wait_until_store_recovers()
            if self._filling.changes:
                await self._commit()
            if self._filling.changes:
                self._work.set()
            elif self._is_closing:
                return

    def close(self) -> None:
        """Let `run` end once everything decided is committed."""
        self._is_closing = True
        self._work.set()

    def abandon(self) -> None:
        """Give up the commit that is under way, and any later one; `run` then raises `StoreError`."""
        self.is_abandoned = True
        if self._scope is not None:
            self._scope.cancel()

    def commit_takes_s(self) -> float:
        """Return for how long the commit that is under way has been; 0.0 where none is."""
        began_s = self._commit_began_s
        return 0.0 if began_s is None else trio.current_time() - began_s

    async def watch(self) -> NoReturn:
        """Warn, once each, of commits that take long."""
        last_logged_s: float | None = None
        while True:
            began_s = self._commit_began_s
            if self.commit_takes_s() > COMMIT_LONG_S and began_s != last_logged_s:
                last_logged_s = began_s
                log.warning(
                    "the store's commit has taken %.0f s and goes on; changes wait for it",
                    self.commit_takes_s(),
                )
            await trio.sleep(WATCH_S)

    async def _store_commit(self, changes: Sequence[Change]) -> None:
        """Have the store commit, whatever is cancelled meanwhile; raises what it raises, and
        `_Abandoned`."""
        self._commit_began_s = trio.current_time()
        try:
            with trio.CancelScope(shield=True) as self._scope:
                if self.is_abandoned:
                    self._scope.cancel()
                await self._store.commit(changes)
        finally:
            self._scope = self._commit_began_s = None
        if self.is_abandoned:
            raise _Abandoned

    async def _commit(self) -> None:
        batch, self._filling = self._filling, _Batch()
        self._writing = batch
        began_s = trio.current_time()
        try:
            await self._store_commit(batch.changes)
        except _Abandoned:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin's store may raise anything
            reraise_if_cancelled(error)
            _log_what_no_store_should_raise(error)
            self._roll_back(batch, error)
            return
        self._writing = None
        self._observe(len(batch.changes), trio.current_time() - began_s)
        batch.finished.set()
        self._publish(batch.events)

    def _roll_back(self, batch: _Batch, error: BaseException) -> None:
        """Take back a batch that is not durable and the one that was decided on top of it."""
        self.failure = str(error) or type(error).__name__
        self._dispatcher.read_only = True
        log.error("commit failed, refusing changes until the store recovers: %s", self.failure)
        later, self._filling, self._writing = self._filling, _Batch(), None
        for lost in (later, batch):
            for rollback_changes in reversed(lost.rollback_changes):
                self._dispatcher.rollback(rollback_changes)
            lost.has_failed = True
            lost.finished.set()
        self._work.set()

    async def _wait_until_store_recovers(self) -> None:
        """Commit a probe record until it holds."""
        while not self._is_closing:
            probe = Change("meta", PROBE_KEY, b'{"at":%d}' % self._clock().wall_ms)
            try:
                await self._store_commit([probe])
            except _Abandoned:
                raise
            except BaseException as error:  # noqa: BLE001 - as above
                reraise_if_cancelled(error)
                self.failure = str(error) or type(error).__name__
                await trio.sleep(PROBE_INTERVAL_S)
            else:
                self._dispatcher.state.apply(probe)
                self.failure = None
                self._dispatcher.read_only = False
                log.warning("the store has recovered; changes are accepted again")
                return

    def _last_in_flight(
        self, read_set: AbstractSet[tuple[Table, str]], reads_all: bool
    ) -> _Batch | None:
        """Return the batch that a reply must wait for, or None when all it shows is durable."""
        for batch in (self._filling, self._writing):
            if batch is None or not batch.changes:
                continue
            if reads_all or not batch.keys.isdisjoint(read_set):
                return batch
        return None

    def _publish_later(self, events: Sequence[Event]) -> None:
        """Tell of something that needs no disk, but not before what was decided earlier."""
        if self._filling.changes:
            self._filling.events.extend(events)
        elif self._writing is not None:
            self._writing.events.extend(events)
        else:
            self._publish(events)


def _log_what_no_store_should_raise(error: BaseException) -> None:
    """A bug of the store's: its change counts as not durable all the same, as after `OSError`."""
    if not isinstance(error, OSError | StoreError):
        log.error("the store raised what is neither OSError nor StoreError", exc_info=error)


def _commit_failed(reason: str) -> CommitFailed:
    return CommitFailed(
        f"The change could not be made durable and was taken back ({reason}); try again.",
        retry_after_s=2,
    )
