"""Check that the oldest pending job of each priority is always known, at little cost."""

import random

from tests.core.kit import Core

from distconvd.dispatch.matching import JobQueue
from distconvd.model import Job


def job(number: int, priority: int = 0, codec: str = "h264") -> Job:
    return Job(f"{1_700_000_000_000_000 + number}_{number}", "http://h/a", codec, priority=priority)


def test_the_oldest_pending_job_is_reported_by_priority_over_all_codecs() -> None:
    queue = JobQueue()
    jobs = [job(0, 1, "av1"), job(1, 0, "vp9"), job(2, 0, "h264"), job(3, 1, "h264")]
    for one in reversed(jobs):
        queue.add(one)
    assert queue.oldest_pending.oldest() == {0: jobs[1].job_id, 1: jobs[0].job_id}
    queue.discard(jobs[1].job_id)
    queue.discard(jobs[0].job_id)
    queue.discard(jobs[3].job_id)
    assert queue.oldest_pending.oldest() == {0: jobs[2].job_id}


def test_a_job_that_changes_its_priority_is_reported_under_the_new_one() -> None:
    queue = JobQueue()
    queue.add(job(0))
    queue.add(job(0, 2))
    assert queue.oldest_pending.oldest() == {2: job(0).job_id}


def test_a_job_that_leaves_its_queue_and_comes_back_in_another_is_reported_once() -> None:
    queue = JobQueue()
    queue.add(job(1, codec="av1"))
    for codec in ("h264", "av1", "h264", "vp9"):
        queue.discard(job(2).job_id)
        queue.add(job(2, codec=codec))  # behind the first, so that its dead entries stay
        queue.add(job(3, codec=codec))
    assert queue.oldest_pending.oldest() == {0: job(1).job_id}
    queue.discard(job(1).job_id)
    assert queue.oldest_pending.oldest() == {0: job(2).job_id}
    queue.discard(job(2).job_id)
    assert queue.oldest_pending.oldest() == {0: job(3).job_id}


def test_the_oldest_job_stays_right_and_dead_entries_few_over_many_random_changes() -> None:
    rng = random.Random(7)
    queue = JobQueue()
    live: dict[str, Job] = {}
    for number in range(5000):
        one = job(rng.randrange(10**6), rng.randrange(3), rng.choice(["h264", "av1"]))
        if one.job_id in live:
            continue
        live[one.job_id] = one
        queue.add(one)
        if number % 3 == 0:  # one that is there already changes
            again = rng.choice(sorted(live))
            live[again] = Job(
                again, "http://h/a", rng.choice(["h264", "vp9"]), priority=rng.randrange(3)
            )
            queue.add(live[again])
        while len(live) > (300 if number < 2500 else 5):
            gone = rng.choice(sorted(live)[:50])
            del live[gone]
            queue.discard(gone)
        if number % 50 == 0:
            expected = {
                p: min(
                    (j.job_id for j in live.values() if j.priority == p), key=lambda i: int(i[:16])
                )
                for p in {j.priority for j in live.values()}
            }
            assert queue.oldest_pending.oldest() == expected
    by_age = sum(len(heap) for heap in queue.oldest_pending._heaps.values())
    assert by_age <= 3 * (2 * len(live) + 66)


def test_only_jobs_in_the_queue_count_not_delayed_paused_or_running_ones() -> None:
    core = Core()
    oldest = core.dispatcher.state.queue.oldest_pending.oldest
    first = core.submit(60.0)
    second = core.submit(60.0)
    core.submit(60.0, not_before=core.wall_ms + 10**9)
    core.engine("E", 1.0)
    assert core.must_ask("E").job_id == first
    assert oldest() == {0: second}
    core.patch(second, paused=True)
    assert oldest() == {}
    core.patch(second, paused=False)
    assert oldest() == {0: second}
    core.reload()
    assert core.dispatcher.state.queue.oldest_pending.oldest() == {0: second}
