"""Check which engine gets a job: limits of the default policy, codecs, tags, order."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.core.kit import Core, check_invariants

from distconvd.dispatch.matching.requirements import Ability
from distconvd.model import Job
from distconvd.policy import EngineInfo, Hold, IdleEngines, Place


def three(core: Core) -> None:
    """Register a fast one, one that streams, and a slow one."""
    core.engine("fast", 5.0)
    core.engine("streams", 10.0, streaming_support=True)
    core.engine("slow", 20.0)


SIZES = [
    (0.0, "slow"),
    (49.999999, "slow"),
    (50.0, "fast"),
    (50.000001, "fast"),
    (99.999999, "fast"),
    (100.0, "streams"),
    (1e6, "streams"),
]


@pytest.mark.parametrize("size, engine", SIZES)
def test_the_default_policy_places_by_size(size: float, engine: str) -> None:
    """Exactly 50 MB is medium, exactly 100 MB is large."""
    core = Core()
    three(core)
    core.submit(size)
    job = core.assign_any()
    assert job is not None
    assert job.assigned_engine == engine
    assert job.placement


def test_a_large_job_goes_to_the_fastest_engine_when_none_streams() -> None:
    """Better than waiting."""
    core = Core()
    core.engine("fast", 5.0)
    core.engine("slow", 20.0)
    core.submit(100.0)
    assert core.must_ask("fast").placement == (
        "no idle engine streams: a large job goes to the fastest (benchmark 5 s)"
    )


@pytest.mark.parametrize("size", [1.0, 60.0, 500.0])
def test_an_engine_without_a_benchmark_gets_nothing(size: float) -> None:
    """Until it has one, from its heartbeat or its benchmark."""
    core = Core()
    core.engine("new", None)
    job_id = core.submit(size)
    assert core.ask("new") is None
    assert "benchmark" in core.why(job_id)
    core.benchmark("new", 3.0)
    assert core.must_ask("new").job_id == job_id


def busy(core: Core) -> None:
    """`fast` reports that it is busy."""
    core.beat("fast", status="busy")


def odd_status(core: Core) -> None:
    """`fast` reports an unknown status, which means that it wants no job."""
    core.beat("fast", status="thinking")


def full(core: Core) -> None:
    """`fast` has as many jobs as slots, although it reports idle."""
    job_id = core.submit(60.0)
    assert core.must_ask("fast").job_id == job_id


def draining(core: Core) -> None:
    """`fast` is drained by people."""
    core.drain("fast")


def offline(core: Core) -> None:
    """`fast` has sent no heartbeat."""
    core.sleep(31)
    core.beat("slow")
    core.beat("streams")
    core.sleep(31)


def quarantined(core: Core) -> None:
    """`fast` failed too many jobs."""
    for _ in range(2):
        core.submit(60.0, max_retries=0)
        core.fail(core.must_ask("fast"))


@pytest.mark.parametrize("how", [busy, odd_status, full, draining, offline, quarantined])
def test_an_engine_that_is_not_idle_is_left_out(how: Callable[[Core], None]) -> None:
    """A medium job goes to the fastest of the others, and `fast` gets nothing."""
    core = Core(quarantine_after=2)
    three(core)
    how(core)
    assigned = core.view("fast")["jobs"]
    core.submit(60.0)
    assert core.must_ask("streams").assigned_engine == "streams"
    core.submit(60.0)
    again = core.ask("fast")
    assert again is None or [again.job_id] == assigned
    check_invariants(core.dispatcher)


@pytest.mark.parametrize("asked", ["h265", "hevc", "libx265", "HEVC", "hevc_nvenc"])
@pytest.mark.parametrize("listed", ["h265", "hevc", "libx265"])
def test_all_names_of_a_codec_count_as_the_same_codec(asked: str, listed: str) -> None:
    """An encoder's name counts as its codec; the job keeps the name that was given."""
    core = Core()
    core.engine("E1", supported_codecs=["vp9", listed])
    core.submit(codec=asked)
    assert core.must_ask("E1").target_codec == asked


def test_an_engine_gets_only_codecs_that_it_lists_and_any_when_it_lists_none() -> None:
    """An unknown name is a codec like any other."""
    core = Core()
    core.engine("E1", supported_codecs=["vp9"])
    core.engine("any", supported_codecs=[])
    core.submit(codec="av1")
    core.submit(codec="prores_ks")
    assert core.ask("E1") is None
    assert core.must_ask("any").target_codec == "av1"


def test_a_benchmark_of_the_jobs_codec_wins_over_the_single_number() -> None:
    """Under any of its names, and only for that codec."""
    core = Core()
    core.engine("gpu", 30.0, supported_codecs=[], benchmarks={"libx265": 1.0})
    core.engine("cpu", 10.0, supported_codecs=[])
    core.submit(60.0, "h265")
    assert core.ask("cpu") is None
    assert core.must_ask("gpu").target_codec == "h265"
    core.submit(60.0, "h264")
    core.complete(core.must_ask("gpu"))
    assert core.ask("gpu") is None
    assert core.must_ask("cpu").target_codec == "h264"


def test_an_engine_needs_all_the_tags_that_a_job_requires() -> None:
    """More tags than required do no harm."""
    core = Core()
    core.engine("one", 1.0, tags=["gpu"])
    core.engine("both", 9.0, tags=["gpu", "berlin", "quiet"])
    core.submit(requires=["berlin", "gpu"])
    assert core.ask("one") is None
    assert core.must_ask("both").requires == ["berlin", "gpu"]


def test_priority_goes_before_age_and_age_before_chance() -> None:
    """Among jobs that the same engines can take, and among all that one engine can."""
    core = Core(pickup_s=1e9)
    core.engine("E1", supported_codecs=["h264", "vp9"], slots=9)
    order = [
        core.submit(codec=codec, priority=priority)
        for codec, priority in [("h264", 0), ("vp9", 0), ("h264", 1), ("vp9", 2), ("h264", 2)]
    ]
    got = [core.must_ask("E1").job_id for _ in order]
    assert got == [order[i] for i in (3, 4, 2, 0, 1)]


def test_a_job_keeps_its_age_over_a_requeue_and_a_restart() -> None:
    """First come, first served, whatever happened meanwhile."""
    core = Core()
    core.engine("E1")
    core.engine("E2", 11.0)
    first, second = core.submit(), core.submit()
    job = core.must_ask("E1")
    assert job.job_id == first
    core.release(job)
    core.reload()
    core.beat("E1")
    assert core.must_ask("E1").job_id == first
    assert core.must_ask("E2").job_id == second


def test_an_engine_that_asks_gets_only_what_the_policy_places_on_it() -> None:
    """A small job is for the slowest idle engine: the fast one gets the medium one behind it."""
    core = Core()
    three(core)
    small, medium = core.submit(1.0), core.submit(60.0)
    assert core.must_ask("fast").job_id == medium
    assert core.why(small).startswith("It is reserved for engine slow")
    assert core.ask("fast") is not None  # the job that it has already
    assert core.must_ask("slow").job_id == small
    check_invariants(core.dispatcher)


def test_an_engine_gets_a_job_meant_for_another_when_all_others_are_taken() -> None:
    """Small jobs go to the slowest idle engine: the fast one is that when it is the only one."""
    core = Core()
    three(core)
    small = [core.submit(1.0) for _ in range(3)]
    assert core.must_ask("fast").job_id == small[2]
    assert [core.must_ask(e).job_id for e in ("slow", "streams")] == small[:2]


def test_an_engine_that_never_registered_cannot_ask_for_work() -> None:
    """The dispatcher does not know what it can do."""
    from distconvd.errors import NotFound

    with pytest.raises(NotFound, match="heartbeat"):
        Core().ask("ghost")


class Stubborn:
    """A policy that does one thing, always."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Return the answer, or raise it."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize(
    "answer",
    [
        ZeroDivisionError("oops"),
        Place("nobody", "why not"),
        Place("busy", "it is not idle"),
        None,
        "fast",
    ],
)
def test_a_policy_that_fails_is_overruled_for_that_job_and_counted(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    """The default policy decides; the failure is logged."""
    core = Core(policy=Stubborn(answer))
    core.engine("fast", 5.0)
    core.engine("busy", 1.0, slots=1)
    core.beat("busy", status="busy")
    core.submit()
    assert core.must_ask("fast").assigned_engine == "fast"
    assert core.dispatcher.policy.failures == 1
    assert "default policy decides" in caplog.text


def test_a_policy_that_holds_a_job_gives_the_reason_that_why_shows() -> None:
    """And the jobs behind it are asked about, up to the lookahead."""

    class Picky:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
            self.asked.append(job.job_id)
            if job.labels.get("ok"):
                return Place(next(iter(engines)).engine_id, "it is ok")
            return Hold("nights only")

    policy = Picky()
    core = Core(policy=policy, lookahead=3)
    core.engine("E1")
    assigned = [core.submit() for _ in range(3)]
    late = core.submit(labels={"ok": "1"})
    assert core.ask("E1") is None
    assert policy.asked == assigned
    assert "nights only" in core.why(assigned[0])
    core.cancel(assigned[1])
    assert core.must_ask("E1").job_id == late


def test_a_policy_sees_idle_engines_fastest_first_and_those_without_a_benchmark_last() -> None:
    """The view of `distconvd.policy.IdleEngines`."""
    seen: list[list[EngineInfo]] = []

    class Recording:
        def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
            seen.append(list(engines))
            fastest, slowest = engines.fastest(), engines.slowest()
            assert fastest is not None
            assert slowest is not None
            assert (fastest.engine_id, slowest.engine_id) == ("fast", "slow")
            streaming = engines.fastest(streaming=True)
            assert streaming is not None
            assert streaming.engine_id == "streams"
            assert engines.get("other") is None
            assert engines.get("fast") == fastest
            return Hold("only looking")

    core = Core(policy=Recording())
    three(core)
    core.engine("raw", None)
    core.engine("other", 1.0, supported_codecs=["vp9"])
    core.submit()
    assert core.ask("slow") is None
    assert [[e.engine_id for e in infos] for infos in seen] == [["fast", "streams", "slow", "raw"]]


def test_of_equally_fast_engines_the_first_by_id_is_taken_from_either_end() -> None:
    """So that placement is the same on every run."""
    for size in (1.0, 60.0):
        core = Core()
        for engine_id in ("b", "a", "c"):
            core.engine(engine_id, 5.0)
        core.submit(size)
        job = core.assign_any()
        assert job is not None
        assert job.assigned_engine == "a"


def test_an_engine_that_takes_any_codec_gets_the_first_job_of_all_queues_whatever_left_them() -> (
    None
):
    """Fronts were cancelled, placed, or overtaken by an urgent job; tags are respected."""
    core = Core(pickup_s=1e9)
    core.engine("any", supported_codecs=[], tags=["gpu"], slots=64)
    ids = [
        core.submit(codec=f"word{n % 5}", requires=[["gpu"], [], ["gpu", "berlin"]][n % 3])
        for n in range(60)
    ]
    for n in range(0, 30, 2):
        core.cancel(ids[n])
    urgent = core.submit(codec="word3", priority=2)
    expected = [urgent, *(i for n, i in enumerate(ids) if n % 3 != 2 and (n >= 30 or n % 2))]
    got = [core.must_ask("any").job_id for _ in expected]
    assert got == expected
    assert core.ask("any") is None
    check_invariants(core.dispatcher)


def test_a_walk_over_fronts_puts_back_what_it_took_and_sees_what_changed_meanwhile() -> None:
    """The first two are yielded; one queue ends, one gets a new front; then all are in order."""
    core = Core()
    ids = [core.submit(codec=f"word{n // 2}") for n in range(8)]
    fronts = core.dispatcher.state.queue.fronts
    any_codec = [Ability(None, frozenset())]
    walk = fronts.in_order(any_codec)
    assert [next(walk)[0].job_id for _ in range(2)] == [ids[0], ids[2]]
    core.cancel(ids[0])
    core.cancel(ids[2])
    core.cancel(ids[3])
    walk.close()
    assert [front.job_id for front, _ in fronts.in_order(any_codec)] == [ids[1], ids[4], ids[6]]
    assert [front.job_id for front, _ in fronts.in_order(any_codec)] == [ids[1], ids[4], ids[6]]
    check_invariants(core.dispatcher)


class Whole(int):
    """A subclass of int."""


class Text(str):
    """A subclass of str."""


NONSENSE: list[object] = [
    Place("E1", 42),  # type: ignore[arg-type]  # what a plugin may do all the same
    Place("E1", "\ud800"),
    Place("E1", "x" * 8193),
    Place("E1", Text("because")),
    Place(["E1"], "because"),  # type: ignore[arg-type]  # as above
    Place("E2", "nobody has that name"),
    Hold(None),  # type: ignore[arg-type]  # as above
    Hold("\ud800"),
    Hold("h", until_ms="soon"),  # type: ignore[arg-type]  # as above
    Hold("h", until_ms=True),
    Hold("h", until_ms=1e300),  # type: ignore[arg-type]  # as above
    Hold("h", until_ms=10**40),
    Hold("h", until_ms=-1),
    Hold("h", until_ms=Whole(1)),
    ("E1", "because"),
]


@pytest.mark.parametrize("answer", NONSENSE, ids=[f"answer {n}" for n in range(len(NONSENSE))])
def test_an_answer_with_a_field_of_another_type_is_overruled_and_never_kept(answer: Any) -> None:
    """The default policy decides that job, and a restart reads all of its record."""

    class Odd:
        name = "odd"

        def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
            kept: Place | Hold = answer
            return kept

    core = Core(policy=Odd())
    core.engine("E1")
    job_id = core.submit()
    assert "(benchmark 10 s)" in (core.must_ask("E1").placement or "")
    assert core.dispatcher.policy.failures == 1
    core.reload()
    assert core.job(job_id).assigned_engine == "E1"
    check_invariants(core.dispatcher)
