"""The promises of docs/migrate_from_original.md: the original's state and engines work."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.kit import Running, start

pytestmark = pytest.mark.e2e

STATE = "dispatch_server_state.json"
DISTCONVD = Path(sys.executable).parent / "distconvd"


def job(job_id: str, status: str, **fields: Any) -> dict[str, Any]:
    """Return a job as the original writes it."""
    return {
        "assigned_engine": None,
        "job_id": job_id,
        "job_size": 60.0,
        "max_retries": 3,
        "output_url": None,
        "retries": 0,
        "source_url": "http://example.com/input.mp4",
        "status": status,
        "target_codec": "h264",
        **fields,
    }


WAITING, RUNNING, DONE = "1704067200000001_0", "1704067200000002_1", "1704067200000003_2"
GIVEN_UP = "1704067200000004_3"
JOBS = [
    job(WAITING, "pending", target_codec="libx264", retries=1),
    job(RUNNING, "assigned", assigned_engine="old-1", retries=2),
    job(DONE, "completed", assigned_engine="old-1", output_url="http://example.com/o.mp4"),
    job(GIVEN_UP, "failed_permanently", retries=4, error_message="no such codec"),
]
HEARTBEAT = {
    "engine_id": "old-1",
    "engine_type": "transcoder",
    "supported_codecs": ["libx264", "libvpx-vp9"],
    "status": "idle",
    "storage_capacity_gb": 500.0,
    "streaming_support": True,
    "encoders": "V..... libx264",
    "hwaccels": "vdpau",
    "local_job_queue": [RUNNING],
}
STATE_FILE = {
    "engines": {"old-1": {**HEARTBEAT, "benchmark_time": 12.5}, "old-2": {"engine_id": "old-2"}},
    "jobs": {each["job_id"]: each for each in JOBS},
}


def audit(state: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DISTCONVD), "audit", "--state-file", str(state)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def post(daemon: Running, path: str, body: object) -> tuple[int, Any]:
    status, reply = daemon.ask("POST", path, body)
    return status, json.loads(reply) if reply else None


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    path = tmp_path / STATE
    path.write_text(json.dumps(STATE_FILE, indent=4))
    return path


def test_the_audit_of_the_originals_file_finds_nothing_and_changes_nothing(copy: Path) -> None:
    before = copy.read_bytes()
    done = audit(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert copy.read_bytes() == before
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_all_of_the_originals_jobs_are_served_with_their_contents(copy: Path) -> None:
    with start(copy.parent) as daemon:
        served = daemon.jobs()
        for each in JOBS:
            migrated = served[each["job_id"]]
            assert {name: migrated[name] for name in each} == each
            assert migrated["created_at"] == int(each["job_id"][:13])
        assert served[RUNNING]["attempt"] == 0


def test_an_engine_of_the_original_ends_its_job_and_takes_the_next(copy: Path) -> None:
    with start(copy.parent) as daemon:
        status, reply = post(daemon, "/engines/heartbeat", HEARTBEAT)
        assert (status, reply["message"]) == (200, "Heartbeat received from engine old-1")
        assert post(daemon, "/assign_job/", {})[0] == 204, "it says idle, and holds a job"
        done = {"output_url": "http://example.com/o.mp4"}
        status, reply = post(daemon, f"/jobs/{RUNNING}/complete", done)
        assert (status, reply["message"]) == (200, f"Job {RUNNING} marked as completed")
        status, reply = post(daemon, "/assign_job/", {})
        assert (status, reply["job_id"]) == (200, WAITING)
        failed = {"error_message": "Transcoding failed"}
        status, reply = post(daemon, f"/jobs/{WAITING}/fail", failed)
        assert (status, reply["message"]) == (200, f"Job {WAITING} re-queued")
        assert daemon.jobs()[WAITING]["retries"] == 2, "the one that it brought counts"
        engine = json.loads(daemon.ask("GET", "/engines/old-1")[1])
        assert engine["hwaccels"] == "vdpau"
        assert daemon.stop() == 0
    assert audit(copy).returncode == 0
