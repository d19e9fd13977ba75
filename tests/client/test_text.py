"""Test the formatting of numbers, times and names, and the removal of control characters."""

import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distconv_client.display import text
from distconv_client.display.tables import job_facts
from distconvd.model import Job, JobResult, JobStatus, Progress

JOB = Job("1", "file:///srv/a%20b.mov", "h265")


@given(st.text())
def test_cleaned_text_has_no_control_characters_and_one_line(raw: str) -> None:
    cleaned = text.clean(raw)
    assert not {unicodedata.category(char) for char in cleaned} & {"Cc", "Cf", "Cs"}
    assert not set(cleaned) & set("\n\r\t\x1b\x07\x9b\u202e\u2028")
    assert text.clean(cleaned) == cleaned


def test_an_escape_sequence_is_made_visible() -> None:
    assert text.clean("a\x1b[31mred\nb") == "a\\x1b[31mred b"


@pytest.mark.parametrize(
    "count, expected",
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1_055_736, "1.06 MB"),
        (999_600, "1.00 MB"),
        (83_520, "83.5 kB"),
        (833_520, "834 kB"),
        (7.2e9, "7.20 GB"),
    ],
)
def test_sizes_are_decimal(count: float | None, expected: str) -> None:
    assert text.size(count) == expected


@pytest.mark.parametrize(
    "before, after, expected",
    [
        (100, 40, "60%"),
        (100, 130, "-30%"),
        (0, 10, "-"),
        (None, 10, "-"),
        (100, None, "-"),
        (100, 0, "100%"),
    ],
)
def test_savings_are_in_percent_of_the_source(
    before: int | None, after: int | None, expected: str
) -> None:
    assert text.saved(before, after) == expected


@pytest.mark.parametrize(
    "seconds, expected",
    [(None, "-"), (-1, "-"), (0.44, "0.4s"), (59.4, "59s"), (60, "1m00s"), (3599, "59m59s"),
     (3660, "1h01m"), (90_000, "1d01h")],
)  # fmt: skip
def test_durations_have_their_two_largest_units(seconds: float | None, expected: str) -> None:
    assert text.duration(seconds) == expected


def test_a_moment_ahead_of_our_clock_counts_as_now() -> None:
    assert text.ago(10_000, 9.0) == "0.0s"
    assert text.ago(10_000, 70.0) == "1m00s"
    assert text.ago(None, 70.0) == text.ago(0, 70.0) == "-"


def test_names_and_places_are_shown_as_a_person_would_type_them() -> None:
    assert text.source_name("https://example.org/x/a%20b.mkv?q=1") == "a b.mkv"
    assert text.source_name("https://example.org") == "https://example.org"
    assert text.place("file:///srv/a%20b.mp4") == "/srv/a b.mp4"
    assert text.place("https://example.org/a%20b.mp4") == "https://example.org/a%20b.mp4"
    assert text.place(None) == "-"


def test_known_priorities_are_words_and_others_numbers() -> None:
    assert [text.priority(value) for value in (0, 1, 2, 9)] == ["normal", "high", "urgent", "9"]


def test_progress_shows_a_fraction_only_while_a_job_runs() -> None:
    now = Progress(0.42, fps=50.0, speed=2.04, eta_seconds=61, phase="encode")
    job = msgspec.structs.replace(JOB, status=JobStatus.ASSIGNED, progress=now)
    assert (text.progress(job), text.pace(job)) == ("42% encode", "50 fps 2x eta 1m01s")
    waiting = msgspec.structs.replace(job, status=JobStatus.PENDING)
    assert (text.progress(waiting), text.pace(waiting)) == ("-", "")


def test_progress_of_an_ended_job_is_its_output_or_its_error() -> None:
    done = msgspec.structs.replace(JOB, status=JobStatus.COMPLETED, output_url="file:///o/a.mp4")
    bad = msgspec.structs.replace(
        JOB, status=JobStatus.FAILED_PERMANENTLY, error_message="cut\noff"
    )
    assert (text.progress(done), text.progress(bad)) == ("/o/a.mp4", "cut off")


def test_the_facts_of_a_job_name_what_a_damaged_source_has_lost() -> None:
    result = JobResult(damage=["video #0 (h264): 3 frames from 1.20 s on", "the end: 2.00 s"])
    job = Job("1_1", "file:///a", "h264", status=JobStatus.COMPLETED, result=result)
    assert dict(job_facts(job))["damage"] == (
        "video #0 (h264): 3 frames from 1.20 s on; the end: 2.00 s"
    )
    assert "damage" not in dict(job_facts(Job("1_1", "file:///a", "h264")))
