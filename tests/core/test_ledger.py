"""The ledger: nobody is told before it is durable, and what was refused never was."""

import errno

import pytest
import trio
import trio.testing
from tests.core.ledger_fixture import SUBMISSION, Desk, begin, open_desk

from distconvd.core.ledger import PROBE_KEY
from distconvd.dispatch import assign, engines, expiry, queries, reports, submit
from distconvd.dispatch.records import decode_job
from distconvd.dispatch.why import why
from distconvd.errors import CommitFailed, Conflict, NotFound, StoreError
from distconvd.model import FailReport, Heartbeat, Job, JobPatch, ProgressReport
from distconvd.store import TABLES

FULL = OSError(errno.ENOSPC, "No space left on device")
blocked = trio.testing.wait_all_tasks_blocked


async def change_twice(desk: Desk, job: Job, nursery: trio.Nursery) -> None:
    """Let one change of a job be written and a newer one wait for the next batch."""
    for priority in (1, 2):
        change = JobPatch(priority=priority)
        begin(nursery, desk.ledger.execute, submit.patch, job.job_id, change)
        await blocked()


async def test_no_reply_comes_before_its_change_is_durable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nor is anybody told."""
    async with open_desk() as desk, trio.open_nursery() as nursery:
        desk.store.hold()
        waiting = begin(nursery, desk.submit)
        await blocked()
        assert not waiting.is_done
        assert not desk.told
        assert not desk.store.memory.tables["jobs"]
        desk.store.release()
        await blocked()
        assert waiting.reply.job_id in desk.store.memory.tables["jobs"]
        assert [event.kind for event in desk.told] == ["job.submitted"]


async def test_what_arrives_during_a_commit_shares_the_next_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Many waiters, few commits."""
    async with open_desk() as desk:
        async with trio.open_nursery() as nursery:
            desk.store.hold()
            nursery.start_soon(desk.submit)
            await blocked()
            for _ in range(500):
                nursery.start_soon(desk.submit)
            await blocked()
            desk.store.release()
        assert desk.store.commits == 2
        assert desk.batches == [1, 500]
        assert len(desk.store.memory.tables["jobs"]) == 501


async def test_events_are_told_in_the_order_in_which_they_were_decided(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also those that need no disk, when something before them does."""
    async with open_desk() as desk:
        await desk.engine()
        job = await desk.submit()
        desk.told.clear()
        async with trio.open_nursery() as nursery:
            desk.store.hold()
            begin(nursery, desk.ask)
            await blocked()
            running = desk.dispatcher.state.job(job.job_id)
            begin(
                nursery, desk.ledger.execute, reports.progress, job.job_id, ProgressReport(1, "E1")
            )
            await blocked()
            begin(nursery, desk.complete, running)
            await blocked()
            assert not desk.told
            desk.store.release()
        kinds = [event.kind for event in desk.told]
        assert kinds == ["job.assigned", "job.progress", "job.completed"]
        desk.told.clear()
        await desk.submit()
        await desk.ask()
        held = next(iter(desk.dispatcher.state.held["E1"]))
        await desk.ledger.execute(reports.progress, held, ProgressReport(1, "E1"))
        assert desk.told[-1].kind == "job.progress"


async def test_a_read_waits_only_for_what_it_shows(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A job that is not in flight is answered at once; listings wait for all."""
    async with open_desk() as desk:
        await desk.engine()
        old, busy = await desk.submit(), await desk.submit()
        async with trio.open_nursery() as nursery:
            desk.store.hold()
            begin(nursery, desk.ledger.execute, submit.patch, busy.job_id, JobPatch(priority=2))
            await blocked()
            with trio.fail_after(1):
                assert await desk.job(old.job_id) == old
                assert await desk.ledger.execute(queries.attempts, old.job_id) == []
            waiting = [
                begin(nursery, desk.job, busy.job_id),
                begin(nursery, desk.ledger.execute, queries.get_engine, "E1"),
                begin(nursery, desk.ledger.execute, queries.list_engines),
                begin(nursery, desk.ledger.execute, why, old.job_id),
                begin(
                    nursery, desk.ledger.execute, queries.list_jobs, queries.JobFilter(), 9, None
                ),
            ]
            await blocked()
            assert not any(outcome.is_done for outcome in waiting)
            desk.store.release()
            await blocked()
            assert waiting[0].reply.priority == 2
            assert all(outcome.is_done for outcome in waiting)


async def test_a_read_waits_for_the_last_of_several_changes_in_flight(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One is being written, a newer one waits for the next batch."""
    async with open_desk() as desk:
        job = await desk.submit()
        async with trio.open_nursery() as nursery:
            desk.store.hold()
            await change_twice(desk, job, nursery)
            reading = begin(nursery, desk.job, job.job_id)
            await blocked()
            assert not reading.is_done
            desk.store.release()
            await blocked()
            assert reading.reply.priority == 2
            assert desk.store.commits == 3


async def test_a_refusal_waits_for_what_it_rests_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The second report is told 409 only once the first one is durable."""
    async with open_desk() as desk:
        job = await desk.running()
        async with trio.open_nursery() as nursery:
            desk.store.hold()
            first = begin(nursery, desk.complete, job)
            await blocked()
            second = begin(nursery, desk.complete, job, "file:///other")
            await blocked()
            assert not first.is_done
            assert not second.is_done
            desk.store.release()
            await blocked()
            assert first.error is None
            assert isinstance(second.error, Conflict)


async def test_a_refusal_that_rested_on_what_was_taken_back_is_decided_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first completion fails with the disk; the second one, refused for its sake, is not
    told that its work is worth nothing."""
    async with open_desk() as desk:
        job = await desk.running()
        async with trio.open_nursery() as nursery:
            desk.store.hold()
            first = begin(nursery, desk.complete, job)
            await blocked()
            second = begin(nursery, desk.complete, job, "file:///other")
            missing = begin(nursery, desk.job, "1_1")
            await blocked()
            desk.store.fail_next(FULL)
            desk.store.release()
            await blocked()
            assert isinstance(first.error, CommitFailed)
            assert isinstance(second.error, CommitFailed)
            assert isinstance(missing.error, NotFound)
        assert (await desk.job(job.job_id)) == job


@pytest.mark.parametrize("error", [FULL, OSError(errno.EIO, "I/O error"), StoreError("broken")])
async def test_a_failed_commit_refuses_its_batch_and_all_that_was_decided_on_top_of_it(
    error: OSError | StoreError, autojump_clock: trio.testing.MockClock
) -> None:
    """503, and memory equals disk at once."""
    async with open_desk() as desk:
        await desk.engine(slots=5)
        kept = await desk.submit()
        before = {t: dict(desk.store.memory.tables[t]) for t in TABLES}
        desk.told.clear()
        async with trio.open_nursery() as nursery:
            desk.store.hold()
            first = begin(nursery, desk.submit)
            await blocked()
            later = [begin(nursery, desk.ask), begin(nursery, desk.submit)]
            change = JobPatch(labels={"a": "b"})
            later += [
                begin(nursery, desk.ledger.execute, submit.patch, kept.job_id, change),
                begin(nursery, desk.ledger.execute, submit.cancel, kept.job_id),
                begin(nursery, desk.ledger.execute, engines.remove, "E1"),
            ]
            await blocked()
            desk.store.fail_next(error)
            desk.store.release()
            while not first.is_done:
                await trio.lowlevel.checkpoint()
            after = {t: getattr(desk.dispatcher.state, t) for t in TABLES}
            assert after | {"meta": {}} == before
            await blocked()
            for outcome in (first, *later):
                assert isinstance(outcome.error, CommitFailed)
                assert outcome.error.status == 503
                assert outcome.error.headers["Retry-After"]
        assert not desk.told
        assert (await desk.job(kept.job_id)) == kept


async def test_while_the_store_fails_changes_are_refused_and_reads_go_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also where an engine waits for a job that is there: nothing is given out."""
    async with open_desk() as desk:
        await desk.engine()
        job = await desk.submit()
        desk.ledger.execute_nowait(assign.park, "E1", 1)
        desk.store.fail_next(FULL, times=5)
        await blocked()
        assert desk.failure() == str(FULL)
        for _ in range(3):
            assert (await desk.job(job.job_id)) == job
            await desk.ledger.execute(queries.list_engines)
            await desk.ledger.execute(why, job.job_id)
            await desk.ledger.execute(expiry.tick)
            with pytest.raises(CommitFailed):
                await desk.submit()
            with pytest.raises(CommitFailed):
                await desk.ask()
            desk.ledger.execute_nowait(submit.cancel, job.job_id)
            assert (await desk.job(job.job_id)) == job
        await trio.sleep(10)
        assert desk.failure() is None
        await desk.ledger.execute(expiry.tick)
        assert (await desk.job(job.job_id)).status == "assigned"
        assert (await desk.ask()) is not None


async def test_the_ledger_recovers_by_itself_when_the_disk_does(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A minute of a full disk; the probe is on record, and memory knows it."""
    async with open_desk() as desk:
        await desk.submit()
        desk.store.fail_next(FULL, times=120)
        with pytest.raises(CommitFailed):
            await desk.submit()
        began_s = trio.current_time()
        refused = 0
        while desk.ledger.failure is not None:
            with pytest.raises(CommitFailed):
                await desk.submit()
            refused += 1
            await trio.sleep(1)
        assert 55 < trio.current_time() - began_s < 65
        assert refused > 50
        await desk.submit()
        assert len(desk.store.memory.tables["jobs"]) == 2
        assert PROBE_KEY in desk.store.memory.tables["meta"]
        desk.check()
        assert "has recovered" in caplog.text


async def test_a_read_never_shows_a_change_that_was_then_taken_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is answered with what is on disk instead, and need not be asked again."""
    async with open_desk() as desk:
        await desk.engine()
        job = await desk.submit()
        for call, shown in (
            (lambda: desk.job(job.job_id), lambda reply: reply == job),
            (
                lambda: desk.ledger.execute(queries.list_jobs, queries.JobFilter(), 9, None),
                lambda page: [decode_job(r) for r in page.records] == [job],
            ),
            (
                lambda: desk.ledger.execute(queries.attempts, job.job_id),
                lambda attempts: attempts == [],
            ),
            (
                lambda: desk.ledger.execute(queries.get_engine, "E1"),
                lambda view: b'"jobs":[]' in view,
            ),
        ):
            async with trio.open_nursery() as nursery:
                desk.store.hold()
                asking = begin(nursery, desk.ask)
                beating = begin(nursery, desk.engine, "E1")
                await blocked()
                reading = begin(nursery, call)
                await blocked()
                desk.store.fail_next(FULL)
                desk.store.release()
                await blocked()
                assert isinstance(asking.error, CommitFailed)
                assert beating.is_done
                assert reading.error is None
                assert shown(reading.reply), reading.reply
            await trio.sleep(5)
            assert desk.ledger.failure is None


async def test_a_cancelled_requester_does_not_lose_the_commit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The client is gone; what was decided stands."""
    async with open_desk() as desk:
        desk.store.hold()
        with trio.move_on_after(1) as scope:
            await desk.submit()
        assert scope.cancelled_caught
        desk.store.release()
        await blocked()
        assert len(desk.store.memory.tables["jobs"]) == 1
        assert [event.kind for event in desk.told] == ["job.submitted"]


async def test_closing_commits_what_is_left(autojump_clock: trio.testing.MockClock) -> None:
    """What was decided and never waited for, too; memory equals disk (see `open_desk`)."""
    async with open_desk() as desk:
        await desk.engine()
        desk.store.hold()
        for _ in range(3):
            desk.ledger.execute_nowait(submit.submit, SUBMISSION)
        await blocked()
        for _ in range(3):
            desk.ledger.execute_nowait(submit.submit, SUBMISSION)
        desk.ledger.close()
        desk.store.release()
    assert len(desk.store.memory.tables["jobs"]) == 6


async def test_closing_while_the_store_fails_ends_all_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What could not be made durable was refused, so nothing is owed."""
    async with open_desk() as desk:
        desk.store.fail_next(FULL, times=10_000)
        with pytest.raises(CommitFailed):
            await desk.submit()
        desk.ledger.close()
        with trio.fail_after(2):
            await blocked()


async def test_a_heartbeat_is_answered_with_states_that_are_durable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """An engine is told `cancel` only once the cancellation is on disk."""
    async with open_desk() as desk:
        job = await desk.running()
        beat = Heartbeat("E1", local_job_queue=[job.job_id])
        async with trio.open_nursery() as nursery:
            desk.store.hold()
            cancelling = begin(nursery, desk.ledger.execute, submit.cancel, job.job_id)
            await blocked()
            beating = begin(nursery, desk.ledger.execute, engines.heartbeat, beat, {})
            await blocked()
            assert not beating.is_done
            desk.store.fail_next(FULL)
            desk.store.release()
            await blocked()
            assert isinstance(cancelling.error, CommitFailed)
            assert beating.reply.jobs[0].verdict == "keep"


async def test_under_failures_at_random_memory_and_disk_agree_and_nothing_acknowledged_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Clients, engines and a disk that fails now and then; an exact account at the end."""
    acknowledged: dict[str, str] = {}

    async def client(desk: Desk) -> None:
        for _ in range(40):
            try:
                acknowledged.setdefault((await desk.submit()).job_id, "pending")
            except CommitFailed:
                await trio.sleep(0.3)

    async def engine(desk: Desk, engine_id: str) -> None:
        while not all(done == "completed" for done in acknowledged.values()) or not acknowledged:
            try:
                await desk.engine(engine_id, supported_codecs=["h264"])
                job = await desk.ask(engine_id)
                if job is None:
                    await trio.sleep(0.1)
                    continue
                assert job.job_id in desk.store.memory.tables["jobs"]
                await desk.complete(job)
                acknowledged[job.job_id] = "completed"
            except CommitFailed:
                await trio.sleep(0.2)

    async def spoil(desk: Desk) -> None:
        for n in range(30):
            await trio.sleep(0.05)
            desk.store.fail_next(FULL, times=1 + n % 3)

    async with open_desk() as desk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spoil, desk)
            for _ in range(4):
                nursery.start_soon(client, desk)
            for n in range(3):
                nursery.start_soon(engine, desk, f"E{n}")
        desk.check()
        stored = {i: decode_job(r).status for i, r in desk.store.memory.tables["jobs"].items()}
        for job_id, status in acknowledged.items():
            assert stored[job_id] == status
        assert desk.store.commits > 10


async def test_a_failing_report_is_counted_once_when_its_engine_repeats_it_after_503(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Taken back means never taken."""
    async with open_desk() as desk:
        job = await desk.running()
        report = FailReport("broke", job.attempt, "E1")
        desk.store.fail_next(FULL)
        with pytest.raises(CommitFailed):
            await desk.ledger.execute(reports.fail, job.job_id, report)
        await trio.sleep(5)
        await desk.ledger.execute(reports.fail, job.job_id, report)
        again = await desk.job(job.job_id)
        assert again.retries == 1
        assert len(desk.dispatcher.state.history(job.job_id).attempts) == 1


async def test_changes_of_one_record_in_both_batches_are_taken_back_newest_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What is left is the record before the older one."""
    async with open_desk() as desk:
        job = await desk.submit()
        async with trio.open_nursery() as nursery:
            desk.store.hold()
            await change_twice(desk, job, nursery)
            desk.store.fail_next(FULL)
            desk.store.release()
        assert await desk.job(job.job_id) == job
        desk.check()
