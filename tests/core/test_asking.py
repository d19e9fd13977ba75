"""Ask for work: reservations, lost replies, long polls."""

from typing import Any

import pytest
from tests.core.kit import Core, check_invariants

from distconvd.dispatch import engines
from distconvd.dispatch.assign import has_unacked
from distconvd.model import JobStatus


def two(core: Core, **fields: Any) -> None:
    """Register a fast and a slow engine."""
    core.engine("fast", 5.0, **fields)
    core.engine("slow", 20.0, **fields)


def reserved(core: Core) -> str:
    """Return a small job that is reserved for `slow`, since `fast` asked."""
    two(core)
    job_id = core.submit(1.0)
    assert core.ask("fast") is None
    assert core.dispatcher.state.reservations == {job_id: "slow"}
    return job_id


def test_nothing_is_assigned_to_a_polling_engine_before_it_asks() -> None:
    """Heartbeats, submissions and time assign nothing; a reservation is not an assignment."""
    core = Core()
    job_id = reserved(core)
    for _ in range(5):
        core.beat("slow")
        core.beat("fast")
        core.sleep(2)
    assert core.job(job_id).status is JobStatus.PENDING
    assert core.published_count("job.assigned") == 0


def test_a_reservation_is_collected_by_its_engine() -> None:
    """It asks within the reservation timeout."""
    core = Core()
    job_id = reserved(core)
    core.sleep(14.9)
    assert core.ask("fast") is None
    assert core.must_ask("slow").job_id == job_id
    assert not core.dispatcher.state.reservations


def test_a_reservation_that_is_not_collected_expires_and_the_job_goes_to_another_engine() -> None:
    """The engine that does not ask is left out until it asks."""
    core = Core()
    job_id = reserved(core)
    core.sleep(15)
    assert not core.dispatcher.state.reservations
    assert core.must_ask("fast").job_id == job_id
    core.submit(1.0)
    assert core.ask("slow") is not None
    check_invariants(core.dispatcher)


def test_an_engine_whose_reservation_expired_is_considered_again_once_it_asks() -> None:
    """Asking shows that it is there, even when there is nothing for it."""
    core = Core()
    job_id = reserved(core)
    core.sleep(15)
    assert core.must_ask("fast").job_id == job_id
    assert core.ask("slow") is None
    core.complete(core.job(job_id))
    small = core.submit(1.0)
    assert core.ask("fast") is None
    assert core.dispatcher.state.reservations == {small: "slow"}


def test_a_renewed_reservation_gets_its_full_time() -> None:
    """The reminder of an earlier reservation of the same job does not end it."""
    core = Core()
    job_id = reserved(core)
    core.sleep(10)
    core.patch(job_id, priority=1)
    assert not core.dispatcher.state.reservations
    assert core.ask("fast") is None
    assert core.dispatcher.state.reservations == {job_id: "slow"}
    core.sleep(14.9)
    assert core.dispatcher.state.reservations == {job_id: "slow"}
    core.sleep(0.1)
    assert not core.dispatcher.state.reservations


@pytest.mark.parametrize("how", ["busy", "offline", "draining", "removed"])
def test_a_reservation_ends_when_its_engine_is_no_longer_idle(how: str) -> None:
    """The job goes back to its place in the queue immediately."""
    core = Core(engine_timeout_s=10, start_grace_s=10)
    job_id = reserved(core)
    if how == "busy":
        core.beat("slow", status="busy")
    elif how == "offline":
        core.sleep(9)
        core.beat("fast")
        core.sleep(2)
    elif how == "draining":
        core.drain("slow")
    else:
        core.remove("slow")
    assert not core.dispatcher.state.reservations
    assert job_id in core.dispatcher.state.queue
    assert core.must_ask("fast").job_id == job_id
    check_invariants(core.dispatcher)


def test_a_reservation_is_decided_again_so_that_an_urgent_job_is_not_overtaken() -> None:
    """The reserved job waits when a more urgent one comes for the same engine."""
    core = Core()
    small = reserved(core)
    urgent = core.submit(1.0, priority=2)
    assert core.must_ask("slow").job_id == urgent
    assert core.job(small).status is JobStatus.PENDING


def test_an_engine_that_resumes_a_lost_attempt_has_fewer_slots_to_reserve() -> None:
    """Its assigned and its reserved jobs together never exceed its slots."""
    core = Core()
    core.engine("slow", 20.0, slots=2)
    core.submit(1.0)
    job = core.must_ask("slow")
    core.sleep(61)
    core.engine("fast", 5.0)
    core.beat("slow", jobs=[])
    core.cancel(core.submit(60.0))
    core.patch(job.job_id, paused=True)
    for _ in range(3):
        core.submit(1.0)
    assert core.must_ask("fast").assigned_engine == "fast"
    assert len(core.dispatcher.state.reservations) == 2
    assert core.heartbeat_verdicts("slow", (job.job_id, 1)) == ["keep"]
    assert len(core.dispatcher.state.reservations) == 1
    check_invariants(core.dispatcher)


def test_asking_again_after_a_lost_reply_gives_the_same_job_under_the_same_attempt() -> None:
    """A lost reply costs nothing."""
    core = Core()
    core.engine("E1")
    core.submit()
    core.submit()
    job = core.must_ask("E1")
    assert core.must_ask("E1") == job
    core.heartbeat_verdicts("E1", (job.job_id, job.attempt))
    assert core.ask("E1") is None


def test_an_assignment_that_a_heartbeat_does_not_name_is_delivered_again() -> None:
    """With a free slot as well, but not before the reply had time to arrive."""
    core = Core(redeliver_s=5.0)
    core.engine("E1", slots=2)
    core.submit()
    job = core.must_ask("E1")
    core.heartbeat_verdicts("E1")
    assert core.ask("E1") is None
    core.sleep(5.1)
    core.heartbeat_verdicts("E1")
    assert core.must_ask("E1") == job
    assert core.ask("E1") is None


def test_an_assignment_is_not_delivered_again_once_the_engine_names_it() -> None:
    """A slow reply did arrive: with another slot free the engine gets another job."""
    core = Core(redeliver_s=5.0)
    core.engine("E1", slots=3)
    core.submit()
    job = core.must_ask("E1")
    core.sleep(6)
    core.heartbeat_verdicts("E1")
    core.heartbeat_verdicts("E1", (job.job_id, 1))
    other = core.submit()
    assert core.must_ask("E1").job_id == other
    core.sleep(6)
    core.heartbeat_verdicts("E1")
    core.progress(job)
    assert core.must_ask("E1").job_id == other
    third = core.submit()
    assert core.must_ask("E1").job_id == third


def test_an_engine_in_a_long_poll_gets_a_job_as_soon_as_there_is_one() -> None:
    """The assignment is unacknowledged until a reply carries it."""
    core = Core()
    core.engine("E1")
    assert core.ask("E1") is None
    core.add_waiter("E1")
    job_id = core.submit()
    assert core.job(job_id).status is JobStatus.ASSIGNED
    assert core.run(has_unacked, "E1")
    assert core.must_ask("E1").job_id == job_id
    assert not core.run(has_unacked, "E1")


def test_a_job_that_ends_before_its_engine_asks_again_leaves_no_unacknowledged_assignment() -> None:
    """It was assigned to a waiting engine that never got it."""
    core = Core()
    core.engine("E1")
    for engine_is_removed in (False, True):
        core.add_waiter("E1")
        job_id = core.submit()
        assert core.dispatcher.state.runtime.unacked["E1"] == {job_id: None}
        core.add_waiter("E1", -1)
        if engine_is_removed:
            core.run(engines.remove, "E1")
        else:
            core.cancel(job_id)
        assert not any(core.dispatcher.state.runtime.unacked.values())
    assert "E1" not in core.dispatcher.state.runtime.unacked


CAUSES = ["benchmark", "idle", "resume", "slot", "online", "codec", "unpause", "due", "requeue"]


@pytest.mark.parametrize("cause", CAUSES)
def test_a_waiting_engine_gets_a_job_when_it_or_the_job_becomes_available(cause: str) -> None:
    """Whatever was in the way; the assignment is unacknowledged."""
    core = Core(engine_timeout_s=10, start_grace_s=10)
    core.engine("E1", None if cause == "benchmark" else 5.0)
    core.add_waiter("E1")
    if cause == "idle":
        core.beat("E1", status="busy")
    elif cause == "resume":
        core.drain("E1")
    elif cause == "slot":
        core.submit()
        core.must_ask("E1")
    elif cause == "online":
        core.sleep(11)
    not_before = core.wall_ms + 1000 if cause == "due" else None
    job_id = core.submit(codec="vp9" if cause == "codec" else "h264", not_before=not_before)
    if cause in ("unpause", "requeue"):
        assert core.must_ask("E1").job_id == job_id
    else:
        assert core.job(job_id).status is JobStatus.PENDING
        assert not core.run(has_unacked, "E1")
    if cause == "benchmark":
        core.benchmark("E1", 3.0)
    elif cause == "idle":
        core.beat("E1", status="idle")
    elif cause == "resume":
        core.drain("E1", draining=False)
    elif cause == "slot":
        core.complete(core.job(core.dispatcher.state.order[0]))
    elif cause == "online":
        core.beat("E1")
    elif cause == "codec":
        core.beat("E1", supported_codecs=["vp9"])
    elif cause == "due":
        core.sleep(1)
    elif cause == "requeue":
        core.release(core.job(job_id))
    elif cause == "unpause":
        core.patch(job_id, paused=True)
        core.release(core.job(job_id))
        assert core.job(job_id).status is JobStatus.PENDING
        core.patch(job_id, paused=False)
    assert core.job(job_id).status is JobStatus.ASSIGNED
    assert core.run(has_unacked, "E1")
    assert core.must_ask("E1").job_id == job_id
    check_invariants(core.dispatcher)


def test_an_engine_that_begins_to_wait_gets_what_was_reserved_for_it_meanwhile() -> None:
    """Another engine asked between its question and its waiting."""
    core = Core()
    two(core)
    assert core.ask("slow") is None
    job_id = core.submit(1.0)
    assert core.ask("fast") is None
    core.add_waiter("slow")
    assert core.job(job_id).assigned_engine == "slow"
    assert core.must_ask("slow").job_id == job_id


def test_a_waiting_engine_that_gives_up_gets_no_more_jobs() -> None:
    """Its waiting requests are counted."""
    core = Core()
    core.engine("E1")
    core.add_waiter("E1")
    core.add_waiter("E1")
    core.add_waiter("E1", -1)
    first = core.submit()
    assert core.job(first).status is JobStatus.ASSIGNED
    core.complete(core.must_ask("E1"))
    core.add_waiter("E1", -1)
    second = core.submit()
    assert core.job(second).status is JobStatus.PENDING
    core.add_waiter("ghost")
    core.add_waiter("E1", -5)
    check_invariants(core.dispatcher)


def test_waiting_engines_share_the_jobs_as_the_policy_says() -> None:
    """Several wait; each submission goes to the one that it is for."""
    core = Core()
    two(core, slots=2)
    for engine_id in ("fast", "slow"):
        core.add_waiter(engine_id)
    sizes = [1.0, 60.0, 1.0, 60.0, 1.0]
    got = [core.job(core.submit(size)).assigned_engine for size in sizes]
    assert got == ["slow", "fast", "slow", "fast", None]


def test_a_job_for_an_engine_that_does_not_wait_is_reserved_although_another_waits() -> None:
    """`slow` has not asked, `fast` waits: the small job is not given to `fast`."""
    core = Core()
    two(core)
    core.add_waiter("fast")
    job_id = core.submit(1.0)
    assert core.dispatcher.state.reservations == {job_id: "slow"}
    core.sleep(15)
    assert core.job(job_id).assigned_engine == "fast"


def test_jobs_that_a_waiting_engine_cannot_take_cause_no_hot_loop() -> None:
    """Placing, failing to place and making each other dirty comes to an end."""
    calls = 0

    from distconv_plugins.policy_size_aware import SizeAware
    from distconvd.model import Job
    from distconvd.policy import Hold, IdleEngines, Place

    class Counting(SizeAware):
        def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
            nonlocal calls
            calls += 1
            return super().place(job, engines, now_ms)

    core = Core(policy=Counting())
    for n in range(20):
        core.engine(f"E{n}", None if n % 2 else float(n), supported_codecs=["h264", "vp9"])
        core.add_waiter(f"E{n}")
    for n in range(40):
        core.submit(float(n * 5), "h264" if n % 3 else "vp9")
    assert core.dispatcher.state.statuses[JobStatus.ASSIGNED] == 10
    assert calls < 1500
    calls = 0
    core.sleep(10)
    assert calls == 0
    check_invariants(core.dispatcher)


def test_assigning_to_any_engine_ends_reservations() -> None:
    """A request for any engine decides the reserved jobs again, and assigns one."""
    core = Core()
    job_id = reserved(core)
    job = core.assign_any()
    assert job is not None
    assert (job.job_id, job.assigned_engine) == (job_id, "slow")
    assert core.assign_any() is None
    assert core.must_ask("slow") == job


def test_assigning_to_any_engine_fills_every_slot_and_no_more() -> None:
    """Then there is nothing to do."""
    core = Core()
    two(core, slots=2)
    for _ in range(6):
        core.submit()
    got = [core.assign_any() for _ in range(5)]
    assert [j.assigned_engine for j in got if j is not None] == ["fast", "fast", "slow", "slow"]
    assert got[4] is None
