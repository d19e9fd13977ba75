"""Test a policy: inherit from `PolicySuite` and provide a fixture that makes yours.

    from distconvd.testing.policy_suite import PolicySuite

    class TestMyPolicy(PolicySuite):
        @pytest.fixture
        def policy(self) -> Policy:
            return MyPolicy(MySettings())

`SomeEngines` is what a policy is given, for your own tests.
"""

# ruff: noqa: D102 (a test's name is its sentence)

import itertools
import math
import statistics
import time
from collections.abc import Iterator, Sequence

import pytest

from distconvd.config import Config
from distconvd.model import Job
from distconvd.plugin_host.loading import Context, Plugins
from distconvd.policy import EngineInfo, Hold, Place, Policy, Share, SharingPolicy

HOUR_MS = 3_600_000
YEAR_MS = 366 * 24 * HOUR_MS
NOW_MS = 1_700_000_000_000
PLACE_MS_MAX = 10.0
"""The most time of a decision among a hundred engines on average; the daemon waits for it."""
SHORT_S = 20e-6
"""Times below this are too short to be compared."""


def load_policy(name: str, *plugins: str, **tables: dict[str, object]) -> Policy:
    """Make a policy as the daemon would.

    Args:
        name: the name that it is registered under.
        plugins: files or modules, as with `--plugin`.
        tables: its settings and others', `**{"my-policy": {"hour": 22}}`.
    """
    registrar = Plugins(list(plugins)).collect("distconvd_register_policies", "policy")
    return Context(Config(plugin=tables), registrar).policy(name)


class SomeEngines:
    """A list of idle engines as `distconvd.policy.IdleEngines`."""

    def __init__(self, engines: Sequence[EngineInfo], asking: str | None = None) -> None:
        self._engines = sorted(
            engines, key=lambda e: (e.benchmark_s is None, e.benchmark_s or 0.0, e.engine_id)
        )
        self._asking = asking

    def fastest(self, *, streaming: bool = False) -> EngineInfo | None:
        return next((e for e in self._ranked() if e.streaming or not streaming), None)

    def slowest(self) -> EngineInfo | None:
        slowest = max((e.benchmark_s or 0.0 for e in self._ranked()), default=None)
        return next((e for e in self._ranked() if e.benchmark_s == slowest), None)

    def get(self, engine_id: str) -> EngineInfo | None:
        return next((e for e in self._engines if e.engine_id == engine_id), None)

    def asking(self) -> EngineInfo | None:
        return None if self._asking is None else self.get(self._asking)

    def __iter__(self) -> Iterator[EngineInfo]:
        return iter(self._engines)

    def _ranked(self) -> list[EngineInfo]:
        return [engine for engine in self._engines if engine.benchmark_s is not None]


def engine(
    engine_id: str, benchmark_s: float | None = 10.0, *, streaming: bool = False,
    tags: Sequence[str] = (), slots: int = 1,
) -> EngineInfo:  # fmt: skip
    """Return one idle engine."""
    return EngineInfo(engine_id, benchmark_s, streaming, frozenset(tags), slots, 0)


def job(number: int = 0, **fields: object) -> Job:
    """Return one job."""
    given = {"job_id": f"{NOW_MS * 1000 + number}_{number}", "source_url": "file:///a.mov"}
    return Job(**{**given, "target_codec": "h264", **fields})  # type: ignore[arg-type]


def odd_jobs() -> list[Job]:
    """Return new jobs that may trip a policy."""
    return [
        job(0),
        job(1, job_size=0.0),
        job(2, job_size=50.0),
        job(3, job_size=1e12, priority=2),
        job(4, priority=1, labels={"team": "日本語 🎬", "": "", "batch": "yes"}),
        job(5, target_codec="something-new", requires=["gpu", "studio"]),
        job(6, retries=3, attempt=4, created_at=1, error_message="it broke"),
        job(7, labels={"team": "small"}, job_size=99.9),
    ]


ODD_JOBS = odd_jobs()
FARMS = [
    [engine("e1")],
    [engine("e1", None)],
    [engine("slow", 90.0), engine("fast", 1.0), engine("streams", 5.0, streaming=True)],
    [engine("new", None), engine("e1", 0.0, tags=["gpu"], slots=64)],
    [engine("ünïcödé / id", 1e9), engine("e1", 1e-9)],
    [engine(f"e{number}", float(number % 7)) for number in range(100)],
]
WEEK_MS = [NOW_MS + hour * HOUR_MS for hour in range(7 * 24)]


class PolicySuite:
    """The tests; give the fixture `policy`."""

    @pytest.fixture
    def policy(self) -> Policy:
        raise NotImplementedError("override the fixture `policy`")

    def test_every_answer_is_an_available_engine_or_a_hold_with_a_reason(
        self, policy: Policy
    ) -> None:
        for each, farm, now_ms in itertools.product(ODD_JOBS, FARMS, WEEK_MS[::9]):
            answer = policy.place(each, SomeEngines(farm), now_ms)
            assert isinstance(answer, Place | Hold), answer
            assert answer.reason.strip(), "the reason is shown to people, so it must not be empty"
            assert answer.reason.isprintable()
            if isinstance(answer, Place):
                assert answer.engine_id in {one.engine_id for one in farm}

    def test_the_caller_does_not_change_the_answer(self, policy: Policy) -> None:
        for each, farm in itertools.product(ODD_JOBS, FARMS):
            for asking in (farm[0].engine_id, farm[-1].engine_id):
                answer = policy.place(each, SomeEngines(farm, asking), NOW_MS)
                assert isinstance(answer, Hold) or answer.engine_id in {e.engine_id for e in farm}

    def test_a_hold_ends_in_the_future_or_has_no_end(self, policy: Policy) -> None:
        for each, farm, now_ms in itertools.product(ODD_JOBS, FARMS, WEEK_MS[::5]):
            answer = policy.place(each, SomeEngines(farm), now_ms)
            if isinstance(answer, Hold) and answer.until_ms is not None:
                assert answer.until_ms > now_ms
                assert answer.until_ms <= now_ms + YEAR_MS, (
                    "was `until_ms` made from another clock than `now_ms`?"
                )

    def test_a_plain_job_is_placed_on_an_idle_engine_at_some_hour_of_the_week(
        self, policy: Policy
    ) -> None:
        for farm in (FARMS[0], FARMS[2], FARMS[5]):
            answers = (policy.place(job(), SomeEngines(farm), now_ms) for now_ms in WEEK_MS)
            assert any(isinstance(answer, Place) for answer in answers), "nobody would be served"

    def test_no_job_is_on_hold_at_every_hour_of_the_week(self, policy: Policy) -> None:
        able = [engine("slow", 90.0, tags=("gpu", "studio")), engine("fast", 1.0, streaming=True)]
        for each in odd_jobs():
            answers = [policy.place(each, SomeEngines(able), now_ms) for now_ms in WEEK_MS]
            placed = any(isinstance(answer, Place) for answer in answers)
            assert placed, f"it would starve: {answers[-1].reason}: {each}"

    def test_a_plain_job_is_still_placed_after_thousands_of_others(self, policy: Policy) -> None:
        for number in range(3000):
            now_ms = WEEK_MS[number % len(WEEK_MS)]
            policy.place(job(number), SomeEngines(FARMS[2]), now_ms)
        answers = (policy.place(job(), SomeEngines(FARMS[2]), now_ms) for now_ms in WEEK_MS)
        assert any(isinstance(answer, Place) for answer in answers), "nobody would be served"

    def test_a_decision_does_not_change_the_job(self, policy: Policy) -> None:
        for each, asked_about in zip(odd_jobs(), odd_jobs(), strict=True):
            policy.place(asked_about, SomeEngines(FARMS[2]), NOW_MS)
            assert asked_about == each

    def test_decisions_are_quick(self, policy: Policy) -> None:
        engines, count = SomeEngines(FARMS[5]), 200
        began_s = time.perf_counter()
        for number in range(count):
            policy.place(ODD_JOBS[number % len(ODD_JOBS)], engines, NOW_MS + number)
        assert (time.perf_counter() - began_s) * 1000 / count < PLACE_MS_MAX

    def test_decisions_do_not_become_slower_with_the_number_of_jobs(self, policy: Policy) -> None:
        farm, took_s = SomeEngines(FARMS[2]), list[float]()
        for number in range(4000):
            each = job(number)
            began_s = time.perf_counter()
            policy.place(each, farm, NOW_MS + number)
            took_s.append(time.perf_counter() - began_s)
        at_first_s = max(statistics.median(took_s[:400]), SHORT_S)
        assert statistics.median(took_s[-400:]) < at_first_s * 8, (
            "its time grows with the number of jobs that it has seen"
        )

    def test_a_share_has_a_name_and_a_cost_and_stays_the_same(self, policy: Policy) -> None:
        if not isinstance(policy, SharingPolicy):
            pytest.skip("it divides nothing")
        for each in ODD_JOBS:
            share = policy.share(each)
            assert isinstance(share, Share)
            assert isinstance(share.name, str)
            assert 0 < share.cost < math.inf
            assert policy.share(each) == share
