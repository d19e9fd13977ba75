"""The policy `time-window` keeps to hours of the week, over midnight and changes of the clock."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from distconv_plugins.policy_size_aware import SizeAware
from distconv_plugins.shared.open_engines import OpenEngines
from distconv_plugins.time_window.plugin import TimeWindow, TimeWindowSettings
from distconv_plugins.time_window.week import DAYS, Week, minutes_of
from distconvd.errors import ConfigError
from distconvd.policy import Hold, Place, Policy
from distconvd.testing.clock import VirtualClock, ms_of
from distconvd.testing.daemon import open_daemon
from distconvd.testing.engine import VirtualEngine
from distconvd.testing.policy_suite import PolicySuite, SomeEngines, engine, job

NIGHT = {"ids": ["desk-*"], "tags": ["desktop"], "hours": "22:00-06:00"}
WEEKEND = {"priorities": [0], "days": ["sat", "sun"]}
BERLIN = "Europe/Berlin"


def policy_of(**settings: Any) -> TimeWindow:
    return TimeWindow(msgspec.convert(settings, TimeWindowSettings), SizeAware())


class TestTimeWindow(PolicySuite):
    @pytest.fixture
    def policy(self) -> Policy:
        every = {"ids": ["*"], "days": ["wed"], "hours": "03:00-04:00"}
        return policy_of(engines=[every], priorities=[{"priorities": [1], "hours": "00:00-12:00"}])


def answer(policy: TimeWindow, at: str, *ids: str, **fields: Any) -> Place | Hold:
    farm = [engine(name, float(number + 1)) for number, name in enumerate(ids)]
    return policy.place(job(job_size=60.0, **fields), SomeEngines(farm), ms_of(at))


@pytest.mark.parametrize(
    "at, is_open",
    [
        ("2026-03-04T21:59:59+00:00", False),
        ("2026-03-04T22:00:00+00:00", True),
        ("2026-03-05T05:59:59+00:00", True),
        ("2026-03-05T06:00:00+00:00", False),
    ],
)
def test_an_engine_is_used_in_its_hours_only_and_these_go_over_midnight(
    at: str, is_open: bool
) -> None:
    found = answer(policy_of(engines=[NIGHT]), at, "desk-1")
    assert isinstance(found, Place) == is_open


def test_a_job_is_held_until_its_closed_engine_opens() -> None:
    found = answer(policy_of(engines=[NIGHT]), "2026-03-04T12:34:56+00:00", "desk-1")
    assert found == Hold(
        "the idle engines that could take the job are outside their hours",
        ms_of("2026-03-04T22:00:00+00:00"),
    )


def test_engines_that_no_window_names_are_always_used_and_closed_ones_passed_over() -> None:
    policy = policy_of(engines=[NIGHT])
    noon = "2026-03-04T12:00:00+00:00"
    found = answer(policy, noon, "desk-1", "rack-1")
    assert isinstance(found, Place)
    assert found.engine_id == "rack-1"
    tagged = SomeEngines([engine("anything", tags=["desktop"])])
    assert isinstance(policy.place(job(), tagged, ms_of(noon)), Hold)


def test_jobs_of_a_priority_wait_for_their_days_and_others_do_not() -> None:
    policy = policy_of(priorities=[WEEKEND])
    friday = "2026-03-06T12:00:00+00:00"
    found = answer(policy, friday, "rack-1")
    assert found == Hold("jobs of priority 0 wait for their hours", ms_of("2026-03-07T00:00:00Z"))
    assert isinstance(answer(policy, friday, "rack-1", priority=1), Place)
    assert isinstance(answer(policy, "2026-03-07T00:00:00+00:00", "rack-1"), Place)


def test_windows_of_one_engine_add_up() -> None:
    weekends = {"ids": ["desk-1"], "days": ["sat", "sun"]}
    policy = policy_of(engines=[NIGHT, weekends])
    assert isinstance(answer(policy, "2026-03-07T12:00:00+00:00", "desk-1"), Place)
    assert isinstance(answer(policy, "2026-03-06T12:00:00+00:00", "desk-1"), Hold)


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    sunday = policy_of(engines=[{**NIGHT, "days": ["sun"]}])
    assert isinstance(answer(sunday, "2026-03-09T05:00:00+00:00", "desk-1"), Place)  # a Monday
    assert isinstance(answer(sunday, "2026-03-09T23:00:00+00:00", "desk-1"), Hold)


@pytest.mark.parametrize(
    "now, opens",
    [
        # The clock goes from 02:00 to 03:00 that night, and back in October.
        ("2026-03-28T12:00:00+01:00", "2026-03-28T22:00:00+01:00"),
        ("2026-03-29T12:00:00+02:00", "2026-03-29T22:00:00+02:00"),
        ("2026-03-28T07:00:00+01:00", "2026-03-28T22:00:00+01:00"),
        ("2026-10-24T12:00:00+02:00", "2026-10-24T22:00:00+02:00"),
        ("2026-10-25T12:00:00+01:00", "2026-10-25T22:00:00+01:00"),
    ],
)
def test_hours_stay_local_time_when_the_clock_changes(now: str, opens: str) -> None:
    found = answer(policy_of(engines=[NIGHT], timezone=BERLIN), now, "desk-1")
    assert isinstance(found, Hold)
    assert found.until_ms == ms_of(opens)


@given(
    st.integers(ms_of("2025-01-01T00:00:00Z"), ms_of("2028-01-01T00:00:00Z")),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
    st.sets(st.sampled_from(DAYS), min_size=1),
    st.integers(0, 23), st.integers(1, 24),
)  # fmt: skip
def test_a_week_agrees_with_the_calendar_at_any_time(
    now_ms: int, zone: str, days: set[Any], begin: int, end: int
) -> None:
    if begin == end:
        end = begin + 1
    minutes = minutes_of(days, f"{begin:02}:00-{end:02}:00")
    week = Week(zone)
    local = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(zone))
    today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
    if begin < end:
        is_open = today in days and begin <= local.hour < end
    else:
        is_open = (today in days and local.hour >= begin) or (
            yesterday in days and local.hour < end
        )
    assert bool(minutes >> week.minute_of(now_ms) & 1) == is_open
    opens_ms = week.opens_at_ms(minutes, now_ms)
    assert opens_ms is not None
    assert now_ms < opens_ms <= now_ms + 8 * 24 * 3_600_000


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"timezone": "Mars/Olympus"}, "timezone 'Mars/Olympus'"),
        ({"engines": [{"hours": "25:00-26:00"}]}, "hours '25:00-26:00'"),
        ({"engines": [{"hours": "08:00-08:00"}]}, "hours '08:00-08:00'"),
        ({"priorities": [{"priorities": [0], "hours": "8-9"}]}, "hours '8-9'"),
        ({"engines": [{"hours": "08:00-24:30"}]}, "hours '08:00-24:30'"),
    ],
)
def test_invalid_windows_are_rejected(settings: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        policy_of(**settings)


def test_the_open_engines_behave_like_any_idle_engines() -> None:
    whole = SomeEngines(
        [
            engine("a", 1.0),
            engine("b", 2.0, streaming=True),
            engine("c", 3.0),
            engine("d", 4.0),
            engine("new", None),
        ],
        "d",
    )
    view = OpenEngines(whole, lambda one: one.engine_id in ("b", "c", "new"))
    assert [one.engine_id for one in view] == ["b", "c", "new"]
    fastest, slowest, streams = view.fastest(), view.slowest(), view.fastest(streaming=True)
    assert fastest is not None and fastest.engine_id == "b"  # noqa: PT018
    assert slowest is not None and slowest.engine_id == "c"  # noqa: PT018
    assert streams == fastest
    assert view.get("a") is None
    assert view.get("b") == fastest
    assert view.asking() is None
    nobody = OpenEngines(whole, lambda one: False)
    assert (nobody.fastest(), nobody.slowest(), list(nobody)) == (None, None, [])


@pytest.mark.slow
async def test_a_job_begins_when_its_window_opens_with_nothing_else_happening(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = VirtualClock("2026-03-04T20:00:00+00:00")
    settings = {"time-window": {"engines": [NIGHT]}}
    dispatch = {"engine_timeout_s": 90_000}
    async with open_daemon(
        policy="time-window", plugin=settings, clock=clock, dispatch=dispatch
    ) as daemon:
        engine_client = VirtualEngine(daemon, "desk-1")
        await engine_client.beat()
        body = {"source_url": "file:///a.mov", "target_codec": "h264"}
        job_id = (await daemon.client.post("/jobs/", body)).json()["job_id"]
        assert await engine_client.ask() is None
        why = (await daemon.client.get(f"/jobs/{job_id}/why")).json()
        assert "outside their hours" in why["summary"]
        await clock.sleep_until("2026-03-04T21:59:45+00:00")
        assert (await engine_client.must_ask(wait_s=30))["job_id"] == job_id
        late_s = (clock.now().wall_ms - ms_of("2026-03-04T22:00:00+00:00")) / 1000
        assert 0 <= late_s < 2
