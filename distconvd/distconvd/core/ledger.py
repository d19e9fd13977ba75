"""Decide, commit, then reply and publish: in this order and no other.

Group commit: while one batch is being written, new decisions fill the next one, so a busy disk
costs each request a part of one fsync. Memory runs ahead of the disk, but nobody can see it: a
reply waits for the batch that contains the last change of anything that it shows.

A failed commit rolls back the batch and everything decided on top of it, newest first, so that
memory equals disk again; their requests get `CommitFailed` (503). Until a probe has been committed
the ledger refuses changes; reads go on. A probe is committed at the start, too, and when nothing else
has been for a while, so that a disk that is full is known before somebody needs it.

A running commit is never cancelled, with one exception: `abandon` gives up a commit that does not
end when the daemon has to stop. Nothing of it has been acknowledged.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

import trio

from distconvd.core.commit_watch import CommitWatch
from distconvd.dispatch import Decision, Dispatcher, Event, Instant, Refusal
from distconvd.dispatch.transaction import Transaction
from distconvd.errors import CommitFailed, StoreError
from distconvd.faults import reraise_if_cancelled
from distconvd.store import Change, Store, Table

log = logging.getLogger("distconvd.ledger")

P = ParamSpec("P")
T = TypeVar("T")

PROBE_INTERVAL_S = 0.5
IDLE_S = 60.0
"""After this time without a commit a probe shows whether one is possible."""
PROBE_KEY = "store_probe"


class _Abandoned(StoreError):
    """A commit did not end, and the daemon has to stop."""

    def __init__(self) -> None:
        super().__init__("a commit of the store did not end and was abandoned")


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
        publish: called with the events of each batch once they are durable; must not wait.
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
        self.stopped = trio.Event()
        """Set when `run` has ended."""
        self._is_probe_wanted = False
        self.probed = trio.Event()
        """Set when the first probe has ended, well or not."""
        self._scope: trio.CancelScope | None = None
        self.commit_watch = CommitWatch()
        self.is_abandoned = False
        self.failure: str | None = None
        """Why the last commit failed; None once the store has recovered."""

    async def execute(
        self,
        command: Callable[Concatenate[Transaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a command and return its reply once all that it shows is durable.

        Raises what the command raises, once everything that the refusal depends on is durable, and
        `CommitFailed` if its changes could not be stored. A command that changed nothing and read
        what was then rolled back is run again.
        """
        # Repeated only after a failed commit, once what it had changed is rolled back.
        while True:
            decision = self._dispatcher.decide(command, self._clock(), *args, **kwargs)
            if isinstance(decision, Refusal):
                if await self._wait_durable(self._last_in_flight(decision)):
                    raise decision.error
                continue
            if not decision.is_read:
                # Never repeated: the client must learn that its change was not stored.
                await self.commit_decision(decision)
                return decision.reply
            # Find the batch before enqueueing: what this read caused besides its reply (jobs for
            # long-polling engines) need not be durable first, only what the reply shows.
            batch = self._last_in_flight(decision)
            self._enqueue(decision)
            if await self._wait_durable(batch):
                return decision.reply

    def execute_nowait(
        self,
        command: Callable[Concatenate[Transaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a command whose reply is shown to nobody; its changes are committed later."""
        decision = self._dispatcher.decide(command, self._clock(), *args, **kwargs)
        if isinstance(decision, Refusal):
            raise decision.error
        if decision.changes and self.failure is not None:
            self._dispatcher.rollback(decision.rollback_changes)
        else:
            self._enqueue(decision)
        return decision.reply

    async def commit_decision(self, decision: Decision[T]) -> None:
        """Wait until a decision is durable; call it right after `decide`, before any checkpoint."""
        if decision.changes and self.failure is not None:
            self._dispatcher.rollback(decision.rollback_changes)
            raise _commit_failed(self.failure)
        self._enqueue(decision)
        if decision.changes:
            batch: _Batch | None = self._filling
        else:
            batch = self._last_in_flight(decision)
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
        """Wait for a batch; return whether it became durable (None: nothing to wait for)."""
        if batch is not None:
            await batch.finished.wait()
        return batch is None or not batch.has_failed

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit batch after batch until `close`; what was decided by then is committed first."""
        task_status.started()
        try:
            await self._run()
        finally:
            self.stopped.set()

    async def _run(self) -> None:
        while True:
            with trio.move_on_after(IDLE_S) as idle:
                await self._work.wait()
            # Renew the event before the commit, so that decisions made during it are not missed.
            self._work = trio.Event()
            if idle.cancelled_caught or self._is_probe_wanted:
                await self._probe_idle()
            if self.failure is not None:
                await self._wait_until_store_recovers()
            # Empty after a rollback or `close`, which set the event without a decision.
            if self._filling.changes:
                await self._commit()
            # Decisions made during the commit are the next batch; a closing ledger commits it too.
            if self._filling.changes:
                self._work.set()
            elif self._is_closing:
                return

    def want_probe(self) -> None:
        """Let `run` find out whether anything can be committed; `probed` is set when it knows."""
        self._is_probe_wanted = True
        self._work.set()

    def close(self) -> None:
        """Let `run` end once everything decided is committed."""
        self._is_closing = True
        self._work.set()

    def abandon(self) -> None:
        """Give up the running commit and any later one; `run` then raises `StoreError`."""
        self.is_abandoned = True
        if self._scope is not None:
            self._scope.cancel()

    async def _store_commit(self, changes: Sequence[Change]) -> None:
        """Commit in the store, shielded from cancellation; raises what the store raises, and
        `_Abandoned`."""
        try:
            with self.commit_watch.timed(), trio.CancelScope(shield=True) as self._scope:
                if self.is_abandoned:
                    self._scope.cancel()
                await self._store.commit(changes)
        finally:
            self._scope = None
        if self.is_abandoned:
            raise _Abandoned

    async def _commit(self) -> None:
        # From here on decisions fill the next batch; replies that show this one wait for it.
        batch, self._filling = self._filling, _Batch()
        self._writing = batch
        began_s = trio.current_time()
        try:
            await self._store_commit(batch.changes)
        except _Abandoned:
            raise  # whether it is durable is unknown: nothing is rolled back, and the daemon ends
        except BaseException as error:  # noqa: BLE001 - a plugin's store may raise anything
            reraise_if_cancelled(error)
            _log_what_no_store_should_raise(error)
            self._roll_back(batch, error)
            return
        self._writing = None
        self._observe(len(batch.changes), trio.current_time() - began_s)
        # Replies and events only now, after the commit.
        batch.finished.set()
        self._publish(batch.events)

    def _roll_back(self, batch: _Batch, error: BaseException) -> None:
        """Roll back a batch that is not durable, and the one that was decided on top of it."""
        self.failure = _describe(error)
        self._dispatcher.read_only = True
        log.error("commit failed; changes are refused until the store recovers: %s", self.failure)
        later, self._filling, self._writing = self._filling, _Batch(), None
        # Newest first: each rollback restores the records before its decision.
        for lost in (later, batch):
            for rollback_changes in reversed(lost.rollback_changes):
                self._dispatcher.rollback(rollback_changes)
            lost.has_failed = True
            lost.finished.set()
        self._work.set()

    async def _wait_until_store_recovers(self) -> None:
        """Commit probes until one succeeds."""
        while not self._is_closing:
            if (failure := await self._probe()) is None:
                self.failure = None
                self._dispatcher.read_only = False
                log.warning("the store has recovered; changes are accepted again")
                return
            self.failure = failure
            await trio.sleep(PROBE_INTERVAL_S)

    async def _probe_idle(self) -> None:
        """Commit a probe; if it fails, refuse changes and let `_run` wait for the store.

        Decisions made meanwhile are not rolled back: they are committed once the store has recovered.
        """
        if (failure := await self._probe()) is not None:
            self.failure = failure
            self._dispatcher.read_only = True
            log.error("nothing can be committed; changes are refused until then: %s", failure)
        self._is_probe_wanted = False
        self.probed.set()

    async def _probe(self) -> str | None:
        """Commit a record that means nothing; return why it failed."""
        probe = Change("meta", PROBE_KEY, b'{"at":%d}' % self._clock().wall_ms)
        try:
            await self._store_commit([probe])
        except _Abandoned:
            raise
        except BaseException as error:  # noqa: BLE001 - as in _commit
            reraise_if_cancelled(error)
            return _describe(error)
        self._dispatcher.state.apply(probe)
        return None

    def _last_in_flight(self, shown: Decision[T] | Refusal) -> _Batch | None:
        """Return the batch that a reply must wait for; None if all that it shows is durable."""
        for batch in (self._filling, self._writing):
            if batch is None or not batch.changes:
                continue
            if shown.reads_all or not batch.keys.isdisjoint(shown.read_set):
                return batch
        return None

    def _publish_later(self, events: Sequence[Event]) -> None:
        """Publish events that need no commit, but not before those that were decided earlier."""
        if self._filling.changes:
            self._filling.events.extend(events)
        elif self._writing is not None:
            self._writing.events.extend(events)
        else:
            self._publish(events)


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _log_what_no_store_should_raise(error: BaseException) -> None:
    """Log a bug of the store; the change counts as not durable all the same, as after `OSError`."""
    if not isinstance(error, OSError | StoreError):
        log.error(
            "the store raised an exception that is neither OSError nor StoreError", exc_info=error
        )


def _commit_failed(reason: str) -> CommitFailed:
    return CommitFailed(
        f"The change could not be made durable and was rolled back ({reason}); try again.",
        retry_after_s=2,
    )
