"""The bounds in the types of messages: what they say, and what they leave readable."""

from typing import Annotated, Any, get_args, get_type_hints

import msgspec
import pytest
from msgspec import Meta

from distconvd.dispatch.records import decode_engine, decode_job
from distconvd.model import (
    BenchmarkReport,
    Heartbeat,
    JobResult,
    Progress,
    ReportedProgress,
    ReportedResult,
    Submission,
    explain,
    maybe_wrong_type,
)


class Inner(msgspec.Struct):
    """What `Outer` contains."""

    shares: dict[Annotated[str, Meta(max_length=2)], Annotated[float, Meta(gt=0, lt=5)]] = {}
    names: Annotated[list[Annotated[str, Meta(min_length=2, pattern="^a")]], Meta(min_length=1)] = (
        msgspec.field(default_factory=lambda: ["ab"])
    )


class Outer(msgspec.Struct):
    """A type with bounds at every kind of place."""

    inner: list[Inner] | None = None
    count: Annotated[int, Meta(ge=2, le=9)] | None | msgspec.UnsetType = msgspec.UNSET
    labels: dict[str, Annotated[str, Meta(max_length=1)]] = {}
    needed: Annotated[int, Meta(extra={"wrong_type": "is missing or odd"})] = 0


@pytest.mark.parametrize(
    "value, field, words",
    [
        ({"count": 1}, "count", "must be at least 2"),
        ({"count": 10}, "count", "must be at most 9"),
        ({"labels": {"a": "xx"}}, "labels", "is longer than 1 characters"),
        ({"inner": [{"shares": {"abc": 1}}]}, "inner.shares", "is longer than 2 characters"),
        ({"inner": [{}, {"shares": {"a": 0}}]}, "inner.shares", "must be more than 0"),
        ({"inner": [{"shares": {"a": 5}}]}, "inner.shares", "must be less than 5"),
        ({"inner": [{"names": []}]}, "inner.names", "has fewer than 1 entries"),
        ({"inner": [{"names": ["a"]}]}, "inner.names", "is shorter than 2 characters"),
        ({"inner": [{"names": ["bb"]}]}, "inner.names", "must match the regular expression '^a'"),
    ],
)
def test_a_bound_without_words_of_its_own_is_said_from_the_bound(
    value: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, Outer)
    fault = explain(caught.value, Outer)
    assert (fault.field, fault.bound) == (field, words)


@pytest.mark.parametrize(
    "value, kind, field, words",
    [
        ({"engine_id": "e", "benchmarks": {"a b": 1}}, Heartbeat, "benchmarks", "one word"),
        ({"engine_id": "e", "tags": ["a b"]}, Heartbeat, "tags", "without spaces"),
        (
            {"source_url": "", "target_codec": "x", "labels": {"": ""}},
            Submission,
            "labels",
            "names",
        ),
    ],
)
def test_an_entry_or_a_key_is_refused_in_the_words_of_its_own_type(
    value: dict[str, Any], kind: Any, field: str, words: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, kind)
    fault = explain(caught.value, kind)
    assert fault.field == field
    assert words in (fault.bound or "")


def test_a_wrong_type_and_a_missing_field_are_no_bounds() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"needed": "x"}, Outer)
    fault = explain(caught.value, Outer)
    assert (fault.field, fault.bound) == ("needed", None)
    assert fault.wrong_type == "is missing or odd"
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"engine_id": "e"}, BenchmarkReport)
    fault = explain(caught.value, BenchmarkReport)
    assert (fault.field, fault.is_missing) == ("benchmark_time", True)
    assert fault.wrong_type == "must be a non-negative number"
    assert maybe_wrong_type(Outer, "count") is None
    assert maybe_wrong_type(dict[str, Any], "count") is None


@pytest.mark.parametrize(
    "sent, stored", [(ReportedProgress, Progress), (ReportedResult, JobResult)]
)
def test_what_engines_report_has_the_fields_of_what_is_stored_each_with_a_bound(
    sent: type[msgspec.Struct], stored: type[msgspec.Struct]
) -> None:
    assert sent.__struct_fields__ == stored.__struct_fields__
    assert sent.__struct_defaults__ == stored.__struct_defaults__
    bounded, plain = (
        get_type_hints(kind, include_extras=extras)
        for kind, extras in ((sent, True), (stored, False))
    )
    assert get_type_hints(sent) == plain
    for name, hint in bounded.items():
        parts = (hint, *get_args(hint))
        assert any(getattr(part, "__metadata__", ()) for part in parts), f"{name} has no bound"


ODD_JOB: dict[str, Any] = {
    "job_id": "1_0",
    "source_url": "x" * 9000,
    "target_codec": "two words",
    "job_size": -5.0,
    "max_retries": 5000,
    "priority": 7,
    "attempt": -1,
    "not_before": -1,
    "labels": {str(number): "x" * 300 for number in range(40)},
    "requires": ["two words"],
    "source_sha256": "short",
    "progress": {"fraction": -1.0, "phase": "x" * 100},
    "options": {"crf": 999, "preset": "two words", "max_width": 0, "max_fps": -1.0},
    "output": {"url": "gopher:" + "x" * 9000, "name": "a/b"},
    "result": {"size_bytes": -1, "checks": ["x" * 2000] * 300},
}
ODD_ENGINE: dict[str, Any] = {
    "engine_id": "two words",
    "supported_codecs": ["two words"] * 100,
    "storage_capacity_gb": -1.0,
    "benchmark_time": -1.0,
    "benchmarks": {"two words": -1.0},
    "slots": 0,
    "tags": ["two words"] * 100,
}


def test_a_stored_record_can_be_read_whatever_the_bounds_of_messages_are() -> None:
    assert set(Submission.__struct_fields__) <= ODD_JOB.keys()
    job = decode_job(msgspec.json.encode(ODD_JOB))
    assert msgspec.to_builtins(job).items() >= {"job_size": -5.0, "priority": 7}.items()
    assert job.options.crf == 999
    engine = decode_engine(msgspec.json.encode(ODD_ENGINE))
    assert (engine.slots, engine.benchmarks) == (0, {"two words": -1.0})
