"""Check that the cost of a command does not grow with the jobs that do not concern it.

Counted, not timed: the function calls, Python's and C's, of one command among 1,000 and among
100,000 pending jobs that no engine can take: half of them of one codec, half with a codec name
each.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from tests.core.kit import START_MS, Core, empty_disk

from distconvd.dispatch import expiry, queries, submit
from distconvd.dispatch.queries import JobFilter
from distconvd.dispatch.records import encode
from distconvd.model import (
    FailureClass,
    Job,
    JobStatus,
    Submission,
)

pytestmark = pytest.mark.slow

SMALL, LARGE = 1_000, 100_000
MEDIUM = Submission("http://a/b", "h264", 60.0)


def crowded(count: int) -> Core:
    """Return a core with this many pending jobs that no engine can take, and five engines."""
    disk = empty_disk()
    template = encode(Job("JOBID", "http://a/b", "CODEC", 60.0, created_at=1, updated_at=1))
    for n in range(count):
        job_id = b"%d_%d" % ((START_MS - 10_000_000) * 1000 + n, n)
        codec = b"word%d" % n if n % 2 else b"nobodys"
        record = template.replace(b"JOBID", job_id).replace(b"CODEC", codec)
        disk["jobs"][job_id.decode()] = record
    core = Core(disk=disk)
    for n in range(5):
        core.engine(f"E{n}", float(n + 1), slots=4)
    return core


class Calls:
    """Counts function calls."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event in ("call", "c_call"):
            self.count += 1


def cost(call: Callable[[], Any]) -> int:
    """Return how many functions were called."""
    calls = Calls()
    before = sys.getprofile()
    sys.setprofile(calls)
    try:
        call()
    finally:
        sys.setprofile(before)
    return calls.count


@pytest.fixture(scope="module")
def worlds() -> dict[int, Core]:
    """Return the small and the large world."""
    return {count: crowded(count) for count in (SMALL, LARGE)}


def heartbeat(core: Core) -> Any:
    """An engine sends a heartbeat."""
    core.beat("E0", free_gb=1.0)


def named(core: Core) -> Any:
    """An engine names an attempt that it does not have."""
    core.heartbeat_verdicts("E0", ("1_1", 1))


def registers(core: Core) -> Any:
    """A new engine registers and is removed."""
    core.engine("E9", supported_codecs=["h264", "vp9"])
    core.remove("E9")


def whole_life(core: Core) -> Any:
    """A job is submitted, changed, assigned, reported on and completed."""
    job_id = core.submit(60.0, key=(f"k{core.dispatcher.state.runtime.id_counter}", "d"))
    core.patch(job_id, priority=1)
    job = core.must_ask("E0")
    assert job.job_id == job_id
    core.progress(job)
    core.complete(job)


def failing(core: Core) -> Any:
    """A job fails for good."""
    core.submit(60.0, max_retries=0)
    core.fail(core.must_ask("E0"), FailureClass.INPUT)


def cancelling(core: Core) -> Any:
    """A job is submitted and cancelled."""
    core.cancel(core.submit(60.0))


def new_word(core: Core) -> Any:
    """A job of yet another codec that no engine lists."""
    core.cancel(core.submit(60.0, f"new{core.dispatcher.state.runtime.id_counter}"))


def one_more_of_the_crowd(core: Core) -> Any:
    """A job joins the long queue of those that no engine can take."""
    core.cancel(core.submit(60.0, "nobodys", priority=2))


def nothing_to_do(core: Core) -> Any:
    """An engine asks, and there is nothing for it."""
    assert core.ask("E1") is None


def any_engine(core: Core) -> Any:
    """Somebody asks for any engine, with and without something to do."""
    assert core.assign_any() is None
    core.submit(60.0)
    job = core.assign_any()
    assert job is not None
    core.complete(job)


def waits(core: Core) -> Any:
    """An engine waits in a long poll and gets a job."""
    core.add_waiter("E0")
    job_id = core.submit(60.0)
    core.add_waiter("E0", -1)
    assert core.must_ask("E0").job_id == job_id
    core.complete(core.job(job_id))


def reserves(core: Core) -> Any:
    """A small job is reserved for another engine, which collects it."""
    core.submit(1.0)
    assert core.ask("E0") is None
    core.complete(core.must_ask("E4"))


def time_passes(core: Core) -> Any:
    """Nothing is due."""
    core.run(expiry.expire_due)


def reads(core: Core) -> Any:
    """A job, an engine, a page from the middle."""
    some = core.dispatcher.state.order[500]
    core.job(some)
    core.view("E0")
    core.run(queries.list_jobs, JobFilter(), 20, some)


def oldest_pending(core: Core) -> Any:
    """The oldest pending jobs are asked for."""
    assert core.dispatcher.state.queue.oldest_pending.oldest()


ALL = [
    heartbeat, named, registers, oldest_pending, whole_life, failing, cancelling, new_word,
    one_more_of_the_crowd, nothing_to_do, any_engine, waits, reserves, time_passes, reads,
]  # fmt: skip


@pytest.mark.parametrize("command", ALL, ids=lambda f: f.__name__)
def test_a_command_costs_the_same_next_to_100000_jobs_that_nobody_can_take(
    command: Callable[[Core], Any], worlds: dict[int, Core]
) -> None:
    """Within a fifth, or a few calls."""
    costs: dict[int, int] = {}
    for count, core in worlds.items():
        command(core)  # what is built once is built
        costs[count] = min(cost(lambda core=core: command(core)) for _ in range(3))  # type: ignore[misc]
    assert costs[LARGE] <= 1.2 * costs[SMALL] + 20, costs


def test_no_policy_is_asked_about_jobs_that_no_engine_can_take(worlds: dict[int, Core]) -> None:
    """It is asked only about the one job that can be placed."""
    core = worlds[LARGE]
    asked: list[str] = []
    real = core.policy.place

    class Listening:
        def place(self, job: Job, engines: Any, now_ms: int) -> Any:
            asked.append(job.job_id)
            return real(job, engines, now_ms)

    core.dispatcher.policy.policy = Listening()
    try:
        job_id = core.submit(60.0)
        core.complete(core.must_ask("E0"))
    finally:
        core.dispatcher.policy.policy = core.policy
    assert asked == [job_id]


def test_an_engine_that_takes_any_codec_costs_no_more_next_to_100000_jobs_of_other_tags(
    worlds: dict[int, Core],
) -> None:
    """Nor among as many codec names that it could take: it looks at the first ones."""
    costs = {}
    for count, core in worlds.items():
        core.engine("any", 1.0, supported_codecs=[])

        def take(core: Core = core) -> None:
            job = core.must_ask("any")
            assert job.status is JobStatus.ASSIGNED
            core.release(job)

        take()
        costs[count] = min(cost(take) for _ in range(3))
        core.engine("any", None)
        costs[-count] = cost(lambda core=core: core.ask("any"))  # type: ignore[misc]
        core.remove("any")
    assert costs[LARGE] <= 1.2 * costs[SMALL] + 20, costs
    assert costs[-LARGE] <= 2 * costs[-SMALL], costs


def test_a_long_queue_of_one_requirement_costs_its_engine_no_more_than_a_short_one() -> None:
    """10,000 jobs that the engine can take, against 100."""
    costs = {}
    for count in (100, 10_000):
        core = Core(policy=None, quarantine_after=0)
        core.engine("E0", slots=1)
        for _ in range(count):
            core.dispatcher.decide(submit.submit, core.now, MEDIUM)

        def take(core: Core = core) -> None:
            core.complete(core.must_ask("E0"))

        take()
        costs[count] = min(cost(take) for _ in range(5))
    assert costs[10_000] <= 1.2 * costs[100] + 20, costs
