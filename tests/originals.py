"""The examples of the original's README: a submission, the job that it makes, and an engine."""

from typing import Any

SUBMISSION: dict[str, Any] = {
    "source_url": "http://example.com/input.mp4",
    "target_codec": "h264",
    "job_size": 100.5,
    "max_retries": 3,
}
JOB: dict[str, Any] = {
    **SUBMISSION,
    "status": "pending",
    "assigned_engine": None,
    "output_url": None,
    "retries": 0,
}
"""All fields but its id."""
ENGINE: dict[str, Any] = {
    "engine_id": "engine-001",
    "engine_type": "transcoder",
    "supported_codecs": ["h264", "vp9"],
    "status": "idle",
    "storage_capacity_gb": 500.0,
    "streaming_support": True,
    "benchmark_time": 125.5,
}
