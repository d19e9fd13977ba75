"""Provide a fake site for the doctor, healthy until a test breaks it, and read its findings."""

import hashlib
import time
import urllib.request
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import msgspec
from tests.client.fake import FakeDaemon, found

from distconv_client.doctor import DoctorConfig, Finding, run_checks
from distconv_client.doctor.clip import FRAMES
from distconv_client.doctor.machine import EngineReport
from distconvd.model import Job, JobResult, JobStatus

REPORT = EngineReport(
    None, "/usr/bin/ffmpeg", "7.1", {"h264": "libx264", "vp9": "libvpx-vp9"}, "/", 9e4, 512.0
)
ENGINE = {
    "engine_id": "attic", "status": "idle", "benchmark_time": 1.0, "supported_codecs": ["h264"],
}  # fmt: skip
CHECKS = (
    *("name", "port", "tls", "http", "clock", "key", "version", "ready", "engines", "ffmpeg"),
    *("disk", "round trip"),
)


class Site(FakeDaemon):
    """The fake daemon with health, roles, and an engine that works as soon as a job comes.

    `replies` overrides a reply by method and path; `work` is what the engine does.
    """

    def __init__(self) -> None:
        super().__init__(life=())
        self.engines = [ENGINE]
        self.replies: dict[str, httpx.Response] = {}
        self.work: Callable[[Job], Job] = encode
        self.cancelled: list[str] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        key = f"{request.method} {request.url.path}"
        if key.startswith("DELETE /engines/"):
            key = "DELETE /engines/"
        date = {"Date": formatdate(time.time(), usegmt=True)}
        if key in self.replies:
            return self.replies[key]
        if key == "GET /livez":
            return httpx.Response(200, text="OK", headers=date)
        if key == "GET /version":
            return found({"version": "0.1.0"})
        if key == "POST /jobs/" and request.url.query:
            return found({})
        if key.startswith("DELETE /jobs/"):
            self.cancelled.append(request.url.path.rpartition("/")[2])
        reply = super().handle(request)
        if key == "POST /jobs/":
            job = msgspec.json.decode(reply.content, type=Job)
            self.jobs[job.job_id] = self.work(job)
        return reply


def encode(job: Job, **changed: Any) -> Job:
    """Act like an engine: fetch the source, make something of it, and upload that."""
    assert job.output is not None
    assert job.output.url is not None
    with urllib.request.urlopen(job.source_url, timeout=10) as source:
        data = b"mp4" + hashlib.sha256(source.read()).digest()
    if job.output.url.startswith("file:"):
        Path(unquote(urlsplit(job.output.url).path)).write_bytes(data)
    else:
        request = urllib.request.Request(job.output.url, data, method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
    result = {"sha256": hashlib.sha256(data).hexdigest(), "video_frames": FRAMES, **changed}
    return msgspec.structs.replace(
        job, status=JobStatus.COMPLETED, assigned_engine="attic", result=JobResult(**result)
    )


def outcomes(doctor_config: DoctorConfig) -> dict[str, str]:
    return {one.check: one.outcome for one in run_checks(doctor_config)}


def failed(doctor_config: DoctorConfig) -> Finding:
    """Return the only failed check; later ones are skipped or fine."""
    (one,) = [one for one in run_checks(doctor_config) if one.outcome == "fail"]
    assert one.remedy
    return one
