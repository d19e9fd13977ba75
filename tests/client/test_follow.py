"""Test following jobs: to their end, through outages, in turn, and within limits."""

from collections.abc import Iterator, Mapping

import msgspec
import pytest
from tests.client.fake import FakeDaemon, running

from distconv_client import ClientError, DaemonUnreachable, Job, JobStatus, NotFound, Refused
from distconv_client.commands.watch import Discovery
from distconv_client.follow import ASKED_PER_POLL, Pace, follow


class Notes:
    """A view that records its calls."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []
        self.outages: list[str] = []

    def show(self, jobs: Mapping[str, Job]) -> None:
        self.shown.append({job_id: job.status for job_id, job in jobs.items()})

    def outage(self, error: ClientError) -> None:
        self.outages.append(error.message)


class Clock:
    """A clock that advances only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def read(self) -> float:
        return self.now_s

    def pace(self, outage_s_max: float = 10.0) -> Pace:
        return Pace(poll_s=1.0, outage_s_max=outage_s_max, sleep=self.sleep, clock=self.read)


class Flaky:
    """A reader with scripted replies: jobs, and errors to raise."""

    def __init__(self, *script: Job | ClientError) -> None:
        self.script = list(script)

    def job(self, job_id: str) -> Job:
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, ClientError):
            raise answer
        return answer


JOB = Job("1", "file:///a", "av1")
DONE = msgspec.structs.replace(JOB, status=JobStatus.COMPLETED)
DOWN = DaemonUnreachable("Cannot reach it.")


def test_following_ends_when_every_job_has_ended(daemon: FakeDaemon) -> None:
    jobs, notes = [daemon.add(), daemon.add()], Notes()
    ended = follow(daemon.client(), jobs, notes, pace=Clock().pace())
    assert [job.status for job in ended.values()] == ["completed", "completed"]
    assert list(ended) == [job.job_id for job in jobs]
    assert set(notes.shown[0].values()) == {"pending"}
    assert set(notes.shown[-1].values()) == {"completed"}


def test_ended_jobs_are_shown_once_and_never_requested(
    daemon: FakeDaemon,
) -> None:
    notes = Notes()
    follow(daemon.client(), [DONE], notes, pace=Clock().pace())
    assert notes.shown == [{"1": "completed"}]
    assert daemon.requests == []


def test_an_ended_job_is_not_requested_again(daemon: FakeDaemon) -> None:
    first, second = daemon.add(), daemon.add(status=JobStatus.CANCELLED)
    follow(daemon.client(), [first, second], Notes(), pace=Clock().pace())
    assert not [request for request in daemon.requests if second.job_id in request.url.path]


def test_an_outage_is_reported_once_and_tolerated() -> None:
    notes, down = Notes(), Refused(503, "No", "draining")
    ended = follow(Flaky(DOWN, down, DOWN, JOB, DOWN, DONE), [JOB], notes, pace=Clock().pace())
    assert ended["1"] is DONE
    assert notes.outages == ["Cannot reach it.", "Cannot reach it."]


def test_an_outage_that_lasts_too_long_is_raised() -> None:
    clock = Clock()
    with pytest.raises(DaemonUnreachable):
        follow(Flaky(DOWN), [JOB], Notes(), pace=clock.pace(outage_s_max=10))
    assert clock.now_s == 12


def test_a_refusal_is_raised_immediately() -> None:
    with pytest.raises(NotFound):
        follow(Flaky(NotFound(404, "No", "Job not found")), [JOB], Notes(), pace=Clock().pace())


def test_many_jobs_are_requested_in_turn_within_a_limit(daemon: FakeDaemon) -> None:
    daemon.life = ()
    count = 3 * ASKED_PER_POLL
    jobs = [daemon.add() for _ in range(count)]
    clock = Clock()

    class Stop(Exception):
        pass

    class ThreePolls(Notes):
        def show(self, jobs: Mapping[str, Job]) -> None:
            super().show(jobs)
            if len(self.shown) == 4:
                raise Stop

    with pytest.raises(Stop):
        follow(daemon.client(), jobs, ThreePolls(), pace=clock.pace())
    asked = [request.url.path.removeprefix("/jobs/") for request in daemon.requests]
    assert sorted(asked) == sorted(job.job_id for job in jobs)


def test_discovered_jobs_are_followed_and_dropped_when_they_have_ended(daemon: FakeDaemon) -> None:
    first, late = daemon.add(), daemon.add()
    finds: Iterator[list[Job]] = iter([[], [late], [], [], [], []])
    notes = Notes()
    with pytest.raises(StopIteration):
        follow(daemon.client(), [first], notes, discover=lambda: next(finds), pace=Clock().pace())
    assert [sorted(shown) for shown in notes.shown[:3]] == [
        [first.job_id],
        [first.job_id],
        [first.job_id, late.job_id],
    ]
    assert notes.shown[-1] == {late.job_id: "completed"}


def test_a_discovered_job_is_not_requested_in_the_same_poll(daemon: FakeDaemon) -> None:
    job = daemon.add()
    finds: Iterator[list[Job]] = iter([[job], [job]])
    with pytest.raises(StopIteration):
        follow(daemon.client(), [], Notes(), discover=lambda: next(finds), pace=Clock().pace())
    assert daemon.requests == []


def test_discovery_lists_running_jobs_before_pending_ones_and_no_ended_ones(
    daemon: FakeDaemon,
) -> None:
    waiting, active = daemon.add(), running(0.5)(daemon.add())
    daemon.jobs[active.job_id] = active
    daemon.add(status=JobStatus.COMPLETED)
    assert Discovery(daemon.client(), Clock().read)() == [active, waiting]


def test_discovery_takes_at_most_a_tenth_of_the_time(daemon: FakeDaemon) -> None:
    daemon.add()
    clock = Clock()
    readings = iter([0.0, 0.0, 1.5, 14.9, 15.0, 15.1])
    discovery = Discovery(daemon.client(), lambda: next(readings))
    assert len(discovery()) == 1
    assert discovery() == []
    assert len(discovery()) == 1
    quick = Discovery(daemon.client(), clock.read)
    assert len(quick()) == 1
    clock.sleep(1.9)
    assert quick() == []
    clock.sleep(0.1)
    assert len(quick()) == 1
