"""Run a ledger on a memory store, and calls concurrently with the test."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from tests.core.kit import START_MS, check_invariants

from distconv_plugins.policy_size_aware import SizeAware
from distconv_plugins.stores.memory import MemoryStore
from distconvd.core.ledger import Ledger
from distconvd.dispatch import (
    Dispatcher,
    DispatchSettings,
    Event,
    Instant,
    assign,
    engines,
    queries,
    reports,
    submit,
)
from distconvd.dispatch.records import decode_job
from distconvd.model import CompleteReport, Heartbeat, Job, Submission
from distconvd.store import TABLES

SUBMISSION = Submission("http://a/b", "h264", 60.0)


class LedgerFixture:
    """A running ledger on a memory store, with the events that it published."""

    def __init__(self, store: MemoryStore, dispatcher: Dispatcher) -> None:
        self.store = store
        self.dispatcher = dispatcher
        self.published: list[Event] = []
        self.batches: list[int] = []
        self.ledger = Ledger(
            dispatcher,
            store,
            self.published.extend,
            self.now,
            lambda changes, duration_s: self.batches.append(changes),
        )

    def now(self) -> Instant:
        """Virtual time on both clocks."""
        return Instant(START_MS + int(trio.current_time() * 1000), trio.current_time())

    def failure(self) -> str | None:
        """Why the store fails at this moment; None if it does not."""
        return self.ledger.failure

    async def submit(self) -> Job:
        """Submit a job."""
        return decode_job(await self.ledger.execute(submit.submit, SUBMISSION))

    async def engine(self, engine_id: str = "E1", **fields: Any) -> None:
        """Register an engine."""
        beat = Heartbeat(engine_id, benchmark_time=5.0, **fields)
        await self.ledger.execute(engines.heartbeat, beat, {})

    async def ask(self, engine_id: str = "E1") -> Job | None:
        """Let an engine ask."""
        record = await self.ledger.execute(assign.ask, engine_id)
        return None if record is None else decode_job(record)

    async def running(self) -> Job:
        """Return a job that E1 has, the first here."""
        await self.engine()
        await self.submit()
        job = await self.ask()
        assert job is not None
        return job

    async def job(self, job_id: str) -> Job:
        """Read a job."""
        return decode_job(await self.ledger.execute(queries.get_job, job_id))

    async def complete(self, job: Job, url: str = "file:///x") -> str:
        """Report a job as done."""
        report = CompleteReport(url, job.attempt, job.assigned_engine)
        return await self.ledger.execute(reports.complete, job.job_id, report)

    def check(self) -> None:
        """Assert that memory equals disk, but for the probe."""
        for table in TABLES:
            on_disk = self.store.memory.tables[table]
            assert getattr(self.dispatcher.state, table) == on_disk, table
        check_invariants(self.dispatcher)


@asynccontextmanager
async def open_ledger_fixture(**settings: Any) -> AsyncIterator[LedgerFixture]:
    """Run a ledger; it must end by itself on `close`, with memory equal to disk."""
    store = MemoryStore()
    snapshot = await store.load()
    now = Instant(START_MS, trio.current_time())
    policy = SizeAware()
    dispatcher = Dispatcher(DispatchSettings(**settings), policy, policy, now, snapshot)
    fixture = LedgerFixture(store, dispatcher)
    async with trio.open_nursery() as nursery:
        await nursery.start(fixture.ledger.run)
        try:
            yield fixture
        finally:
            fixture.store.release()  # a test that fails must end, too
        fixture.ledger.close()
    fixture.check()


class Outcome:
    """The outcome of a call that runs concurrently with the test."""

    def __init__(self) -> None:
        self.reply: Any = None
        self.error: BaseException | None = None
        self.is_done = False


def begin(nursery: trio.Nursery, call: Callable[..., Any], *args: Any) -> Outcome:
    """Start a call that runs concurrently with the test."""
    outcome = Outcome()

    async def run() -> None:
        try:
            outcome.reply = await call(*args)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            outcome.error = error
        outcome.is_done = True

    nursery.start_soon(run)
    return outcome
