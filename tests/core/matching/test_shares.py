"""Check that shares take turns, and that this never reorders the jobs of one share."""

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.core.kit import Core, check_invariants

from distconv_plugins.policy_size_aware import SizeAware
from distconvd.dispatch import DispatchSettings
from distconvd.dispatch.matching import JobQueue, requirements_of
from distconvd.dispatch.matching.shares import SHARES_MAX, Shares
from distconvd.model import Job
from distconvd.policy import Hold, IdleEngines, Place, Share, SharingPolicy


class ByTeam(SizeAware):
    """A policy that divides by the label `team`; the label `cost` is the cost of a job."""

    def share(self, job: Job) -> Share:
        return Share(job.labels.get("team", ""), float(job.labels.get("cost", "1")))


class Whim:
    """A policy that holds the jobs of some teams."""

    def __init__(self, *held_teams: str) -> None:
        self.held_teams = held_teams

    def share(self, job: Job) -> Share:
        return Share(job.labels.get("team", ""), 1.0)

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        engine = engines.fastest()
        if engine is None or job.labels.get("team") in self.held_teams:
            return Hold("not this team")
        return Place(engine.engine_id, "any")


def served(core: Core, count: int) -> list[str]:
    """Return the teams of the jobs that one engine gets, one after the other."""
    teams = []
    for _ in range(count):
        job = core.must_ask("e1")
        teams.append(job.labels.get("team", ""))
        core.complete(job)
    return teams


def test_a_policy_without_shares_is_not_a_sharing_policy() -> None:
    assert not isinstance(SizeAware(), SharingPolicy)
    assert isinstance(ByTeam(), SharingPolicy)


def test_shares_take_turns_however_many_jobs_one_of_them_submitted_first() -> None:
    core = Core(policy=ByTeam())
    core.engine("e1")
    for _ in range(10):
        core.submit(labels={"team": "a"})
    for _ in range(3):
        core.submit(labels={"team": "b"})
    assert served(core, 6) == ["a", "b", "a", "b", "a", "b"]


def test_a_share_with_half_the_cost_gets_twice_the_jobs() -> None:
    core = Core(policy=ByTeam())
    core.engine("e1")
    for _ in range(60):
        core.submit(labels={"team": "a"})
        core.submit(labels={"team": "b", "cost": "0.5"})
    assert Counter(served(core, 60)) == {"a": 20, "b": 40}


def test_priority_goes_before_shares() -> None:
    core = Core(policy=ByTeam())
    core.engine("e1")
    for _ in range(3):
        core.submit(labels={"team": "a"}, priority=1)
    core.submit(labels={"team": "b"})
    assert served(core, 4) == ["a", "a", "a", "b"]


def test_within_a_share_the_oldest_comes_first() -> None:
    core = Core(policy=ByTeam())
    core.engine("e1")
    ids = [core.submit(labels={"team": team}) for team in "aabb"]
    got = []
    for _ in ids:
        job = core.must_ask("e1")
        core.complete(job)
        got.append(job.job_id)
    assert got == [ids[0], ids[2], ids[1], ids[3]]


def test_shares_are_counted_over_all_requirements_together() -> None:
    core = Core(policy=ByTeam())
    core.engine("e1", supported_codecs=["h264", "vp9"])
    for _ in range(4):
        core.submit(labels={"team": "a"})
        core.submit(labels={"team": "a"}, codec="vp9")
    core.submit(labels={"team": "b"}, codec="vp9")
    core.submit(labels={"team": "b"}, codec="h264")
    assert sorted(served(core, 4)) == ["a", "a", "b", "b"]


def test_an_idle_share_saves_up_nothing() -> None:
    core = Core(policy=ByTeam())
    core.engine("e1")
    for _ in range(40):
        core.submit(labels={"team": "a"})
    served(core, 20)
    for _ in range(20):
        core.submit(labels={"team": "b"})
    assert Counter(served(core, 20)) == {"a": 10, "b": 10}


def test_a_share_whose_jobs_are_held_does_not_hide_the_others() -> None:
    core = Core(policy=Whim("a"), lookahead=2)
    core.engine("e1")
    for _ in range(20):
        core.submit(labels={"team": "a"})
    core.submit(labels={"team": "b"})
    assert served(core, 1) == ["b"]
    check_invariants(core.dispatcher)


def test_why_names_the_shares_that_take_turns() -> None:
    core = Core(policy=ByTeam())
    first, second, _ = (core.submit(labels={"team": team}) for team in "aab")
    core.engine("e1")
    assert core.why(second) == (
        "1 job that the same engines can take comes before it in its share, which takes turns"
        " with 'b'."
    )
    assert core.why(first) == "It is the next job of its share, which takes turns with 'b'."


@pytest.mark.parametrize("answer", [None, "team", Share("a", 0.0), Share("a", float("nan")), 7])
def test_a_policy_that_returns_an_invalid_share_is_counted_and_its_job_is_still_assigned(
    answer: object,
) -> None:
    class Broken(SizeAware):
        def share(self, job: Job) -> object:
            if answer is None:
                raise RuntimeError("no")
            return answer

    core = Core(policy=Broken())
    core.engine("e1")
    core.submit()
    assert core.must_ask("e1").attempt == 1
    assert core.dispatcher.policy.failures > 0


def test_a_hold_ends_at_its_time_without_any_other_event() -> None:
    class Later(SizeAware):
        def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
            if now_ms < opens_ms:
                return Hold("not yet", opens_ms)
            return super().place(job, engines, now_ms)

    core = Core(policy=Later(), engine_timeout_s=10_000)
    opens_ms = core.wall_ms + 3_600_000
    core.engine("e1")
    core.add_waiter("e1")
    job_id = core.submit()
    core.sleep(3_599)
    assert core.job(job_id).assigned_engine is None
    assert core.why(job_id) == "It stays in the queue for now: not yet."
    core.sleep(2)
    assert core.job(job_id).assigned_engine == "e1"


# ------------------------------------------------------------------------------ the queue itself

Op = tuple[str, int, int, int]
OPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "discard", "take"]), st.integers(0, 30), st.integers(0, 3),
        st.integers(0, 2),
    ),
    max_size=80,
)  # fmt: skip
CODECS = ("h264", "vp9")


def job_of(number: int, team: int, priority: int) -> Job:
    return Job(
        f"{1000 + number}_0", "file:///a", CODECS[number % 2], priority=priority,
        labels={"team": "abcd"[team], "cost": str(1 + team)},
    )  # fmt: skip


class Model:
    """The same order, found by a full scan."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.shares = Shares()

    def add(self, job: Job) -> None:
        self.discard(job.job_id)
        if not self._share_queue(job):
            self.shares.queue_added(job.labels["team"])
        self.jobs[job.job_id] = job

    def discard(self, job_id: str) -> None:
        job = self.jobs.pop(job_id, None)
        if job is not None and not self._share_queue(job):
            self.shares.queue_removed(job.labels["team"])

    def _share_queue(self, job: Job) -> list[Job]:
        same = (requirements_of(job), job.labels["team"])
        return [j for j in self.jobs.values() if (requirements_of(j), j.labels["team"]) == same]

    def front(self, codec: str) -> str | None:
        found = [j for j in self.jobs.values() if j.target_codec == codec]
        found.sort(key=lambda j: (-j.priority, self.shares.clock(j.labels["team"]), j.job_id))
        return found[0].job_id if found else None


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(OPS)
@example(
    # All that was left in the schedule was dead.
    [
        ("add", 1, 1, 0), ("add", 3, 0, 0), ("add", 5, 0, 1), ("add", 7, 2, 0), ("add", 9, 0, 1),
        ("take", 1, 0, 0), ("take", 1, 0, 0), ("add", 3, 0, 0),
    ]
)  # fmt: skip
def test_the_front_of_a_queue_is_what_a_full_scan_finds(ops: list[Op]) -> None:
    queue, model = JobQueue(), Model()
    queue.share_of = ByTeam().share
    for kind, number, team, priority in ops:
        job = job_of(number, team, priority)
        if kind == "add":
            queue.add(job)
            model.add(job)
        elif kind == "discard":
            queue.discard(job.job_id)
            model.discard(job.job_id)
        else:
            front = queue.front(requirements_of(job))
            if front is not None:
                taken = model.jobs[front.job_id]
                queue.charge(taken)
                model.shares.charge(*ByTeam().share(taken))
                queue.discard(front.job_id)
                model.discard(front.job_id)
        for codec in CODECS:
            requirements = requirements_of(Job("1_0", "file:///a", codec))
            front = queue.front(requirements)
            assert (front and front.job_id) == model.front(codec)
            before = [entry.job_id for entry in queue.in_order(requirements)]
            assert sorted(before) == sorted(
                j.job_id for j in model.jobs.values() if j.target_codec == codec
            )
            partly = queue.in_order(requirements)
            assert [next(partly).job_id for _ in range(len(before) // 2)] == (
                before[: len(before) // 2]
            )
            partly.close()
            assert [entry.job_id for entry in queue.in_order(requirements)] == before
            assert before[:1] == ([front.job_id] if front else [])


def test_shares_of_one_queue_alternate_within_each_priority() -> None:
    queue = JobQueue()
    queue.share_of = ByTeam().share
    for number, (team, priority) in enumerate([(0, 0), (0, 0), (0, 2), (1, 0), (1, 1), (2, 0)]):
        queue.add(job_of(2 * number, team, priority))
    order = [e.job_id for e in queue.in_order(requirements_of(job_of(0, 0, 0)))]
    assert order[:2] == ["1004_0", "1008_0"]
    assert order[2:] == ["1010_0", "1000_0", "1006_0", "1002_0"]


def test_the_number_of_clocks_of_absent_shares_is_bounded() -> None:
    shares = Shares()
    shares.queue_added("stays")
    for number in range(3 * SHARES_MAX):
        name = f"passing {number}"
        shares.queue_added(name)
        shares.charge(name, 1.0)
        shares.queue_removed(name)
    assert len(shares._clocks) <= SHARES_MAX + 2


def test_a_placement_asks_about_few_jobs_however_many_shares_and_jobs_there_are() -> None:
    queue = JobQueue()
    asked = 0

    def share_of(job: Job) -> Share:
        nonlocal asked
        asked += 1
        return Share(job.labels["team"], 1.0)

    queue.share_of = share_of
    jobs = {}
    for number in range(20_000):
        job = Job(f"{number}_0", "file:///a", "h264", labels={"team": str(number % 1_000)})
        jobs[job.job_id] = job
        queue.add(job)
    requirements = requirements_of(jobs["0_0"])
    asked = 0
    seen = []
    for _ in range(2_000):
        front = queue.front(requirements)
        assert front is not None
        queue.charge(jobs[front.job_id])
        queue.discard(front.job_id)
        seen.append(jobs[front.job_id].labels["team"])
    assert asked == 2_000
    assert set(Counter(seen).values()) == {2}
    requirement_queue = queue._requirement_queues[requirements]
    schedule = requirement_queue._schedule
    assert schedule is not None
    assert len(schedule._heap) <= 2 * len(requirement_queue.share_queues) + 65
    assert DispatchSettings().lookahead < 100
