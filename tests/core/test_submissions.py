"""Submit jobs, submit them again, change, cancel and restart them; list them."""

import pytest
from tests.core.kit import START_MS, Core, check_invariants

from distconvd.dispatch import queries
from distconvd.dispatch.queries import JobFilter
from distconvd.dispatch.records import decode_job
from distconvd.dispatch.submit import rehearse
from distconvd.errors import Conflict, JobArchived, NotFound, Unavailable, Unprocessable
from distconvd.model import FailureClass, JobStatus, Submission


def test_an_id_is_microseconds_and_a_counter() -> None:
    """As with the original; several in one millisecond differ."""
    core = Core()
    ids = [core.submit() for _ in range(3)]
    assert ids == [f"{START_MS * 1000 + n}_{n}" for n in range(3)]


def test_a_dry_run_creates_no_job() -> None:
    """It shows the job that would be made."""
    core = Core()
    shown = decode_job(core.run(rehearse, Submission("http://a/b", "vp9", 3.0)))
    assert (shown.job_id, shown.target_codec, shown.status) == ("dry-run", "vp9", "pending")
    assert not core.disk["jobs"]
    assert not core.decisions[-1].changes


def test_submissions_beyond_jobs_max_are_refused() -> None:
    """The answer names the limit and when to try again."""
    core = Core(jobs_max=2)
    core.submit(key=("a", "1"))
    core.submit()
    with pytest.raises(Unavailable, match="jobs_max"):
        core.submit()
    assert core.submit(key=("a", "1")) in core.disk["jobs"]


def test_the_same_idempotency_key_gives_the_same_job_over_restarts() -> None:
    """However often it comes."""
    core = Core()
    job_id = core.submit(key=("k", "digest"))
    assert core.submit(key=("k", "digest")) == job_id
    core.reload()
    assert core.submit(key=("k", "digest")) == job_id
    assert len(core.disk["jobs"]) == 1


def test_an_idempotency_key_used_for_another_request_is_refused() -> None:
    """Nothing is made."""
    core = Core()
    core.submit(key=("k", "digest"))
    with pytest.raises(Unprocessable):
        core.submit(key=("k", "another"))
    assert len(core.disk["jobs"]) == 1


@pytest.mark.parametrize("restarts", [False, True])
def test_the_oldest_idempotency_keys_are_forgotten_beyond_the_limit(restarts: bool) -> None:
    """In the order in which they came, also after a restart."""
    core = Core(idempotency_keys_max=3)
    ids = {n: core.submit(key=(f"k{n}", "d")) for n in range(5)}
    if restarts:
        core.reload()
    assert len(core.disk["meta"]) == 3
    assert core.submit(key=("k4", "d")) == ids[4]
    assert core.submit(key=("k2", "d")) == ids[2]
    assert core.submit(key=("k0", "d")) != ids[0]
    assert len(core.disk["meta"]) == 3


def test_the_key_of_an_archived_job_is_answered_with_job_archived() -> None:
    """It is not made again."""
    core = Core()
    job_id = core.submit(key=("k", "d"))
    del core.disk["jobs"][job_id]
    core.reload()
    with pytest.raises(JobArchived):
        core.submit(key=("k", "d"))


def test_an_idempotency_record_that_cannot_be_read_counts_as_missing() -> None:
    """Better a second job than a key that always fails."""
    core = Core()
    core.submit(key=("k", "d"))
    key = next(iter(core.disk["meta"]))
    core.disk["meta"][key] = b'{"what": 1}'
    core.reload()
    core.submit(key=("k", "d"))
    assert len(core.disk["jobs"]) == 2
    assert core.submit(key=("k", "d")) == max(core.disk["jobs"])


def test_a_changed_priority_moves_a_job_in_the_queue() -> None:
    """Immediately, in both directions."""
    core = Core()
    core.engine("E1")
    first, second = core.submit(), core.submit()
    core.patch(second, priority=1)
    assert core.must_ask("E1").job_id == second
    core.complete(core.job(second))
    assert core.must_ask("E1").job_id == first
    assert core.published_count("job.updated") == 1


def test_a_paused_job_waits_until_it_is_resumed() -> None:
    """Also over a restart."""
    core = Core()
    core.engine("E1")
    job_id = core.submit()
    core.patch(job_id, paused=True)
    core.reload()
    core.beat("E1")
    assert core.ask("E1") is None
    assert "paused" in core.why(job_id)
    core.patch(job_id, paused=False)
    assert core.must_ask("E1").job_id == job_id


def test_a_job_waits_for_its_not_before_also_when_that_is_changed() -> None:
    """To a later time, to an earlier one, and to none."""
    core = Core()
    core.engine("E1")
    job_id = core.submit(not_before=core.wall_ms + 20_000)
    core.sleep(10)
    core.patch(job_id, not_before=core.wall_ms + 30_000)
    core.sleep(29.9)
    core.beat("E1")
    assert core.ask("E1") is None
    assert "its not_before time" in core.why(job_id)
    core.patch(job_id, not_before=core.wall_ms + 40_000)
    core.patch(job_id, not_before=core.wall_ms + 1_000)
    core.sleep(1)
    assert core.must_ask("E1").job_id == job_id
    other = core.submit(not_before=core.wall_ms + 99_000)
    core.patch(other, not_before=None)
    assert other in core.dispatcher.state.queue


def test_a_not_before_set_while_a_job_is_assigned_counts_when_it_is_released() -> None:
    """And then it ends in time."""
    core = Core()
    core.engine("E1")
    core.submit()
    job = core.must_ask("E1")
    core.patch(job.job_id, not_before=core.wall_ms + 20_000)
    core.release(job)
    assert core.ask("E1") is None
    check_invariants(core.dispatcher)
    core.sleep(20)
    assert core.must_ask("E1").attempt == 2


@pytest.mark.parametrize("end", ["completed", "failed_permanently", "cancelled"])
def test_an_ended_job_cannot_be_changed_and_moves_only_when_a_person_starts_it_again(
    end: str,
) -> None:
    """With all its retries, under the next attempt number, with its history."""
    core = Core(retry_backoff_s=0, retry_elsewhere_s=0)
    core.engine("E1")
    job_id = core.submit(max_retries=1)
    core.fail(core.must_ask("E1"), message="first")
    job = core.must_ask("E1")
    if end == "completed":
        core.complete(job)
    elif end == "cancelled":
        core.cancel(job_id)
    else:
        core.fail(job, message="second")
    core.sleep(100_000)
    assert core.job(job_id).status == end
    with pytest.raises(Conflict):
        core.patch(job_id, priority=1)
    again = core.restart(job_id)
    assert (again.status, again.retries, again.attempt, again.base_attempt) == ("pending", 0, 2, 2)
    assert (again.error_message, again.output_url, again.finished_at) == (None, None, None)
    with pytest.raises(Conflict):
        core.restart(job_id)
    with pytest.raises(Conflict):
        core.complete(job)
    core.beat("E1")
    third = core.must_ask("E1")
    assert third.attempt == 3
    core.fail(third, message="third")
    assert core.job(job_id).retries == 1
    assert [a.number for a in core.attempts(job_id)] == [1, 2, 3]


def test_losses_before_a_restart_by_a_person_do_not_count_as_poison() -> None:
    """Limits count only what came after."""
    core = Core(lost_attempts_max=2)
    core.engine("E1")
    job_id = core.submit()
    for _ in range(2):
        core.engine("E1")
        core.must_ask("E1")
        core.sleep(61)
    assert core.job(job_id).status is JobStatus.FAILED_PERMANENTLY
    core.restart(job_id)
    core.engine("E1")
    core.must_ask("E1")
    core.sleep(61)
    assert core.job(job_id).status is JobStatus.PENDING


def test_cancelling_twice_is_answered_as_before_and_an_ended_job_cannot_be_cancelled() -> None:
    """The first end wins."""
    core = Core()
    core.engine("E1")
    job_id = core.submit()
    first = core.cancel(job_id)
    assert (first.status, first.error_class) == ("cancelled", FailureClass.CANCELLED)
    assert core.cancel(job_id) == first
    assert core.attempts(job_id) == []
    core.submit()
    job = core.must_ask("E1")
    core.complete(job)
    with pytest.raises(Conflict):
        core.cancel(job.job_id)


@pytest.mark.parametrize("state", ["queued", "delayed", "reserved", "paused", "assigned"])
def test_a_job_can_be_cancelled_wherever_it_waits(state: str) -> None:
    """It leaves no trace in any queue."""
    core = Core()
    core.engine("E1", 5.0)
    core.engine("E2", 9.0)
    not_before = core.wall_ms + 9000 if state == "delayed" else None
    job_id = core.submit(1.0 if state == "reserved" else 60.0, not_before=not_before)
    if state == "paused":
        core.patch(job_id, paused=True)
    elif state in ("reserved", "assigned"):
        core.ask("E1")
    core.cancel(job_id)
    check_invariants(core.dispatcher)
    core.sleep(100)
    assert core.job(job_id).status is JobStatus.CANCELLED
    assert not core.dispatcher.state.delayed
    assert not core.dispatcher.state.reservations


def test_unknown_jobs_are_not_found() -> None:
    """By any command."""
    core = Core()
    for call in (core.job, core.cancel, core.restart, core.attempts, core.why):
        with pytest.raises(NotFound):
            call("1_1")


def test_the_pages_of_a_listing_add_up_to_the_whole_while_jobs_are_submitted_and_end() -> None:
    """Oldest first; the cursor is a job id."""
    core = Core()
    ids = [core.submit(codec="vp9" if n % 2 else "h264") for n in range(10)]
    got: list[str] = []
    cursor: str | None = None
    for _ in range(20):
        page = core.run(queries.list_jobs, JobFilter(), 3, cursor)
        got += [decode_job(r).job_id for r in page.records]
        cursor = page.next_cursor
        if cursor is None:
            break
        core.cancel(ids[len(got) - 1])
        ids.append(core.submit()) if len(ids) < 12 else None
    assert got == ids


def test_a_listing_can_be_narrowed_by_status_engine_codec_and_label() -> None:
    """Codec names are compared as codecs."""
    core = Core()
    core.engine("E1", supported_codecs=["hevc"])
    wanted = core.submit(codec="libx265", labels={"show": "7"})
    core.submit(codec="vp9", labels={"show": "8"})
    core.must_ask("E1")
    for which in (
        JobFilter(status=JobStatus.ASSIGNED),
        JobFilter(engine="E1"),
        JobFilter(codec="h265"),
        JobFilter(label=("show", "7")),
    ):
        page = core.run(queries.list_jobs, which, 10, None)
        assert [decode_job(r).job_id for r in page.records] == [wanted]
        assert page.next_cursor is None
