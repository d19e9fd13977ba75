"""Check that replies and events follow the commit; refused changes leave no trace."""

import errno

import pytest
import trio
import trio.testing
from tests.core.ledger_fixture import SUBMISSION, LedgerFixture, begin, open_ledger_fixture

from distconvd.core.ledger import PROBE_KEY
from distconvd.dispatch import assign, engines, expiry, queries, reports, submit
from distconvd.dispatch.records import decode_job
from distconvd.dispatch.why import why
from distconvd.errors import CommitFailed, Conflict, NotFound, StoreError
from distconvd.model import FailReport, Heartbeat, Job, JobPatch, ProgressReport
from distconvd.store import TABLES

FULL = OSError(errno.ENOSPC, "No space left on device")
blocked = trio.testing.wait_all_tasks_blocked


async def change_twice(fixture: LedgerFixture, job: Job, nursery: trio.Nursery) -> None:
    """Let one change of a job be written and a newer one wait for the next batch."""
    for priority in (1, 2):
        change = JobPatch(priority=priority)
        begin(nursery, fixture.ledger.execute, submit.patch, job.job_id, change)
        await blocked()


async def test_no_reply_comes_before_its_change_is_durable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nor is any event published."""
    async with open_ledger_fixture() as fixture, trio.open_nursery() as nursery:
        fixture.store.block_commits()
        waiting = begin(nursery, fixture.submit)
        await blocked()
        assert not waiting.is_done
        assert not fixture.published
        assert not fixture.store.memory.tables["jobs"]
        fixture.store.release()
        await blocked()
        assert waiting.reply.job_id in fixture.store.memory.tables["jobs"]
        assert [event.kind for event in fixture.published] == ["job.submitted"]


async def test_requests_that_arrive_during_a_commit_share_the_next_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Many waiters, few commits."""
    async with open_ledger_fixture() as fixture:
        async with trio.open_nursery() as nursery:
            fixture.store.block_commits()
            nursery.start_soon(fixture.submit)
            await blocked()
            for _ in range(500):
                nursery.start_soon(fixture.submit)
            await blocked()
            fixture.store.release()
        assert fixture.store.commits == 2
        assert fixture.batches == [1, 500]
        assert len(fixture.store.memory.tables["jobs"]) == 501


async def test_events_are_published_in_the_order_in_which_they_were_decided(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also those that need no disk, when something before them does."""
    async with open_ledger_fixture() as fixture:
        await fixture.engine()
        job = await fixture.submit()
        fixture.published.clear()
        async with trio.open_nursery() as nursery:
            fixture.store.block_commits()
            begin(nursery, fixture.ask)
            await blocked()
            running = fixture.dispatcher.state.job(job.job_id)
            begin(
                nursery,
                fixture.ledger.execute,
                reports.progress,
                job.job_id,
                ProgressReport(1, "E1"),
            )
            await blocked()
            begin(nursery, fixture.complete, running)
            await blocked()
            assert not fixture.published
            fixture.store.release()
        kinds = [event.kind for event in fixture.published]
        assert kinds == ["job.assigned", "job.progress", "job.completed"]
        fixture.published.clear()
        await fixture.submit()
        await fixture.ask()
        assigned = next(iter(fixture.dispatcher.state.assigned["E1"]))
        await fixture.ledger.execute(reports.progress, assigned, ProgressReport(1, "E1"))
        assert fixture.published[-1].kind == "job.progress"


async def test_a_read_waits_only_for_what_it_shows(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A job that is not in flight is answered immediately; listings wait for all."""
    async with open_ledger_fixture() as fixture:
        await fixture.engine()
        old, busy = await fixture.submit(), await fixture.submit()
        async with trio.open_nursery() as nursery:
            fixture.store.block_commits()
            begin(nursery, fixture.ledger.execute, submit.patch, busy.job_id, JobPatch(priority=2))
            await blocked()
            with trio.fail_after(1):
                assert await fixture.job(old.job_id) == old
                assert await fixture.ledger.execute(queries.attempts, old.job_id) == []
            waiting = [
                begin(nursery, fixture.job, busy.job_id),
                begin(nursery, fixture.ledger.execute, queries.get_engine, "E1"),
                begin(nursery, fixture.ledger.execute, queries.list_engines),
                begin(nursery, fixture.ledger.execute, why, old.job_id),
                begin(
                    nursery, fixture.ledger.execute, queries.list_jobs, queries.JobFilter(), 9, None
                ),
            ]
            await blocked()
            assert not any(outcome.is_done for outcome in waiting)
            fixture.store.release()
            await blocked()
            assert waiting[0].reply.priority == 2
            assert all(outcome.is_done for outcome in waiting)


async def test_a_read_waits_for_the_last_of_several_changes_in_flight(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One is being written, a newer one waits for the next batch."""
    async with open_ledger_fixture() as fixture:
        job = await fixture.submit()
        async with trio.open_nursery() as nursery:
            fixture.store.block_commits()
            await change_twice(fixture, job, nursery)
            reading = begin(nursery, fixture.job, job.job_id)
            await blocked()
            assert not reading.is_done
            fixture.store.release()
            await blocked()
            assert reading.reply.priority == 2
            assert fixture.store.commits == 3


async def test_a_refusal_waits_for_what_it_depends_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The second report gets 409 only once the first one is durable."""
    async with open_ledger_fixture() as fixture:
        job = await fixture.running()
        async with trio.open_nursery() as nursery:
            fixture.store.block_commits()
            first = begin(nursery, fixture.complete, job)
            await blocked()
            second = begin(nursery, fixture.complete, job, "file:///other")
            await blocked()
            assert not first.is_done
            assert not second.is_done
            fixture.store.release()
            await blocked()
            assert first.error is None
            assert isinstance(second.error, Conflict)


async def test_a_refusal_that_depended_on_what_was_rolled_back_is_decided_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first completion fails with the disk; the second one, refused because of it, must not be
    answered that the job has ended."""
    async with open_ledger_fixture() as fixture:
        job = await fixture.running()
        async with trio.open_nursery() as nursery:
            fixture.store.block_commits()
            first = begin(nursery, fixture.complete, job)
            await blocked()
            second = begin(nursery, fixture.complete, job, "file:///other")
            missing = begin(nursery, fixture.job, "1_1")
            await blocked()
            fixture.store.fail_next(FULL)
            fixture.store.release()
            await blocked()
            assert isinstance(first.error, CommitFailed)
            assert isinstance(second.error, CommitFailed)
            assert isinstance(missing.error, NotFound)
        assert (await fixture.job(job.job_id)) == job


@pytest.mark.parametrize("error", [FULL, OSError(errno.EIO, "I/O error"), StoreError("broken")])
async def test_a_failed_commit_refuses_its_batch_and_all_that_was_decided_on_top_of_it(
    error: OSError | StoreError, autojump_clock: trio.testing.MockClock
) -> None:
    """503, and memory equals disk immediately."""
    async with open_ledger_fixture() as fixture:
        await fixture.engine(slots=5)
        kept = await fixture.submit()
        before = {t: dict(fixture.store.memory.tables[t]) for t in TABLES}
        fixture.published.clear()
        async with trio.open_nursery() as nursery:
            fixture.store.block_commits()
            first = begin(nursery, fixture.submit)
            await blocked()
            later = [begin(nursery, fixture.ask), begin(nursery, fixture.submit)]
            change = JobPatch(labels={"a": "b"})
            later += [
                begin(nursery, fixture.ledger.execute, submit.patch, kept.job_id, change),
                begin(nursery, fixture.ledger.execute, submit.cancel, kept.job_id),
                begin(nursery, fixture.ledger.execute, engines.remove, "E1"),
            ]
            await blocked()
            fixture.store.fail_next(error)
            fixture.store.release()
            while not first.is_done:
                await trio.lowlevel.checkpoint()
            after = {t: getattr(fixture.dispatcher.state, t) for t in TABLES}
            assert after | {"meta": {}} == before
            await blocked()
            for outcome in (first, *later):
                assert isinstance(outcome.error, CommitFailed)
                assert outcome.error.status == 503
                assert outcome.error.headers["Retry-After"]
        assert not fixture.published
        assert (await fixture.job(kept.job_id)) == kept


async def test_while_the_store_fails_changes_are_refused_and_reads_go_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also while an engine waits for a job that is there: nothing is assigned."""
    async with open_ledger_fixture() as fixture:
        await fixture.engine()
        job = await fixture.submit()
        fixture.ledger.execute_nowait(assign.add_waiter, "E1", 1)
        fixture.store.fail_next(FULL, times=5)
        await blocked()
        assert fixture.failure() == FULL.strerror
        for _ in range(3):
            assert (await fixture.job(job.job_id)) == job
            await fixture.ledger.execute(queries.list_engines)
            await fixture.ledger.execute(why, job.job_id)
            await fixture.ledger.execute(expiry.expire_due)
            with pytest.raises(CommitFailed):
                await fixture.submit()
            with pytest.raises(CommitFailed):
                await fixture.ask()
            fixture.ledger.execute_nowait(submit.cancel, job.job_id)
            assert (await fixture.job(job.job_id)) == job
        await trio.sleep(10)
        assert fixture.failure() is None
        await fixture.ledger.execute(expiry.expire_due)
        assert (await fixture.job(job.job_id)).status == "assigned"
        assert (await fixture.ask()) is not None


async def test_the_ledger_recovers_by_itself_when_the_disk_does(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk is full for a minute; then the probe is stored, and memory has it too."""
    async with open_ledger_fixture() as fixture:
        await fixture.submit()
        fixture.store.fail_next(FULL, times=120)
        with pytest.raises(CommitFailed):
            await fixture.submit()
        began_s = trio.current_time()
        refused = 0
        while fixture.ledger.failure is not None:
            with pytest.raises(CommitFailed):
                await fixture.submit()
            refused += 1
            await trio.sleep(1)
        assert 55 < trio.current_time() - began_s < 65
        assert refused > 50
        await fixture.submit()
        assert len(fixture.store.memory.tables["jobs"]) == 2
        assert PROBE_KEY in fixture.store.memory.tables["meta"]
        fixture.check()
        assert "has recovered" in caplog.text


async def test_a_read_never_shows_a_change_that_was_then_rolled_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is answered with what is on disk instead; the client need not repeat it."""
    async with open_ledger_fixture() as fixture:
        await fixture.engine()
        job = await fixture.submit()
        for call, shown in (
            (lambda: fixture.job(job.job_id), lambda reply: reply == job),
            (
                lambda: fixture.ledger.execute(queries.list_jobs, queries.JobFilter(), 9, None),
                lambda page: [decode_job(r) for r in page.records] == [job],
            ),
            (
                lambda: fixture.ledger.execute(queries.attempts, job.job_id),
                lambda attempts: attempts == [],
            ),
            (
                lambda: fixture.ledger.execute(queries.get_engine, "E1"),
                lambda view: b'"jobs":[]' in view,
            ),
        ):
            async with trio.open_nursery() as nursery:
                fixture.store.block_commits()
                asking = begin(nursery, fixture.ask)
                beating = begin(nursery, fixture.engine, "E1")
                await blocked()
                reading = begin(nursery, call)
                await blocked()
                fixture.store.fail_next(FULL)
                fixture.store.release()
                await blocked()
                assert isinstance(asking.error, CommitFailed)
                assert beating.is_done
                assert reading.error is None
                assert shown(reading.reply), reading.reply
            await trio.sleep(5)
            assert fixture.ledger.failure is None


async def test_a_cancelled_requester_does_not_lose_the_commit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The client is gone; the decision is committed all the same."""
    async with open_ledger_fixture() as fixture:
        fixture.store.block_commits()
        with trio.move_on_after(1) as scope:
            await fixture.submit()
        assert scope.cancelled_caught
        fixture.store.release()
        await blocked()
        assert len(fixture.store.memory.tables["jobs"]) == 1
        assert [event.kind for event in fixture.published] == ["job.submitted"]


async def test_closing_commits_what_is_left(autojump_clock: trio.testing.MockClock) -> None:
    """What was decided and never waited for, too; memory equals disk (see
    `open_ledger_fixture`)."""
    async with open_ledger_fixture() as fixture:
        await fixture.engine()
        fixture.store.block_commits()
        for _ in range(3):
            fixture.ledger.execute_nowait(submit.submit, SUBMISSION)
        await blocked()
        for _ in range(3):
            fixture.ledger.execute_nowait(submit.submit, SUBMISSION)
        fixture.ledger.close()
        fixture.store.release()
    assert len(fixture.store.memory.tables["jobs"]) == 6


async def test_closing_ends_although_the_store_fails(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What could not be made durable was refused, so nothing is left to commit."""
    async with open_ledger_fixture() as fixture:
        fixture.store.fail_next(FULL, times=10_000)
        with pytest.raises(CommitFailed):
            await fixture.submit()
        fixture.ledger.close()
        with trio.fail_after(2):
            await blocked()


async def test_a_heartbeat_is_answered_with_states_that_are_durable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """An engine gets the verdict `cancel` only once the cancellation is on disk."""
    async with open_ledger_fixture() as fixture:
        job = await fixture.running()
        beat = Heartbeat("E1", local_job_queue=[job.job_id])
        async with trio.open_nursery() as nursery:
            fixture.store.block_commits()
            cancelling = begin(nursery, fixture.ledger.execute, submit.cancel, job.job_id)
            await blocked()
            beating = begin(nursery, fixture.ledger.execute, engines.heartbeat, beat, {})
            await blocked()
            assert not beating.is_done
            fixture.store.fail_next(FULL)
            fixture.store.release()
            await blocked()
            assert isinstance(cancelling.error, CommitFailed)
            assert beating.reply.jobs[0].verdict == "keep"


async def test_under_random_failures_memory_and_disk_agree_and_nothing_acknowledged_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Clients, engines and a disk that fails now and then; an exact account at the end."""
    acknowledged: dict[str, str] = {}

    async def client(fixture: LedgerFixture) -> None:
        for _ in range(40):
            try:
                acknowledged.setdefault((await fixture.submit()).job_id, "pending")
            except CommitFailed:
                await trio.sleep(0.3)

    async def engine(fixture: LedgerFixture, engine_id: str) -> None:
        while not all(done == "completed" for done in acknowledged.values()) or not acknowledged:
            try:
                await fixture.engine(engine_id, supported_codecs=["h264"])
                job = await fixture.ask(engine_id)
                if job is None:
                    await trio.sleep(0.1)
                    continue
                assert job.job_id in fixture.store.memory.tables["jobs"]
                await fixture.complete(job)
                acknowledged[job.job_id] = "completed"
            except CommitFailed:
                await trio.sleep(0.2)

    async def break_disk(fixture: LedgerFixture) -> None:
        for n in range(30):
            await trio.sleep(0.05)
            fixture.store.fail_next(FULL, times=1 + n % 3)

    async with open_ledger_fixture() as fixture:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_disk, fixture)
            for _ in range(4):
                nursery.start_soon(client, fixture)
            for n in range(3):
                nursery.start_soon(engine, fixture, f"E{n}")
        fixture.check()
        stored = {i: decode_job(r).status for i, r in fixture.store.memory.tables["jobs"].items()}
        for job_id, status in acknowledged.items():
            assert stored[job_id] == status
        assert fixture.store.commits > 10


async def test_a_failing_report_is_counted_once_when_its_engine_repeats_it_after_503(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A report that was rolled back counts as never received."""
    async with open_ledger_fixture() as fixture:
        job = await fixture.running()
        report = FailReport("broke", job.attempt, "E1")
        fixture.store.fail_next(FULL)
        with pytest.raises(CommitFailed):
            await fixture.ledger.execute(reports.fail, job.job_id, report)
        await trio.sleep(5)
        await fixture.ledger.execute(reports.fail, job.job_id, report)
        again = await fixture.job(job.job_id)
        assert again.retries == 1
        assert len(fixture.dispatcher.state.history(job.job_id).attempts) == 1


async def test_changes_of_one_record_in_both_batches_are_rolled_back_newest_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What is left is the record before the older one."""
    async with open_ledger_fixture() as fixture:
        job = await fixture.submit()
        async with trio.open_nursery() as nursery:
            fixture.store.block_commits()
            await change_twice(fixture, job, nursery)
            fixture.store.fail_next(FULL)
            fixture.store.release()
        assert await fixture.job(job.job_id) == job
        fixture.check()
