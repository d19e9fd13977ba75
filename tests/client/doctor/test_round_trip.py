"""Test the round trip: the result of a job comes back, or the doctor reports what failed."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from tests.client.doctor.kit import ENGINE, Site, encode
from tests.client.fake import problem

from distconv_client import Client
from distconv_client.doctor import DoctorConfig, Finding, run_checks
from distconv_client.doctor.clip import make_clip
from distconv_client.doctor.transport import by_folder, by_http
from distconv_client.errors import BadInput
from distconvd.model import FailureClass, Job, JobStatus


def last(doctor_config: DoctorConfig) -> Finding:
    return list(run_checks(doctor_config))[-1]


def test_the_round_trip_leaves_nothing_in_a_shared_folder(
    doctor_config: DoctorConfig, tmp_path: Path, site: Site
) -> None:
    doctor_config.clip_dir = tmp_path
    assert last(doctor_config).outcome == "ok"
    assert list(tmp_path.iterdir()) == []
    site.work = lambda job: job
    doctor_config.timeout_s = 0
    assert last(doctor_config).outcome == "fail"
    assert list(tmp_path.iterdir()) == []


def test_the_job_is_urgent_small_and_labelled(doctor_config: DoctorConfig, site: Site) -> None:
    last(doctor_config)
    (job,) = site.jobs.values()
    assert (job.priority, job.max_retries, job.labels) == (2, 0, {"distconv": "doctor"})
    assert job.job_size == len(make_clip()) / 1e6
    assert site.cancelled == []


def test_the_clip_is_encoded_to_a_codec_that_an_engine_supports(
    doctor_config: DoctorConfig, site: Site
) -> None:
    site.engines = [ENGINE | {"supported_codecs": ["vp9", "av1"]}]
    last(doctor_config)
    (job,) = site.jobs.values()
    assert job.target_codec == "vp9"


def with_end(job: Job, **fields: Any) -> Job:
    return msgspec.structs.replace(job, **fields)


Work = Callable[[Job], Job]
FAULTS: dict[str, tuple[Work, str, str]] = {
    "failed": (
        lambda job: with_end(
            job, status=JobStatus.FAILED_PERMANENTLY, error_message="The source cannot be read.",
            error_class=FailureClass.INPUT,
        ),
        "the job failed: The source cannot be read.",
        "if the engine cannot reach this machine (127.0.0.1), name a folder",
    ),
    "transient failure": (
        lambda job: with_end(job, error_message="connection refused", attempt=1),
        "the job failed: connection refused",
        "distconv attempts --log",
    ),
    "result missing": (
        lambda job: with_end(job, status=JobStatus.COMPLETED, assigned_engine="attic"),
        "attic reported success, but the result is missing",
        "distconv status",
    ),
    "other bytes": (
        lambda job: encode(job, sha256="0" * 64),
        "the result differs from what attic reported",
        "alters files in transit",
    ),
    "frames lost": (lambda job: encode(job, video_frames=24), "24 of 25 frames came back", "log"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_round_trip_is_reported_with_cause_and_remedy(
    doctor_config: DoctorConfig, site: Site, fault: str
) -> None:
    site.work, expected, remedy = FAULTS[fault]
    result = last(doctor_config)
    assert (result.outcome, result.detail) == ("fail", expected)
    assert remedy in result.remedy


@pytest.mark.parametrize(
    "status,said",
    [
        (JobStatus.PENDING, "the job is still pending after 0 s: All are busy."),
        (JobStatus.ASSIGNED, "the job has not ended on attic after 0 s"),
    ],
)
def test_a_round_trip_that_takes_too_long_is_cancelled(
    doctor_config: DoctorConfig, site: Site, status: JobStatus, said: str
) -> None:
    doctor_config.timeout_s = 0
    site.work = lambda job: with_end(job, status=status, assigned_engine="attic")
    result = last(doctor_config)
    assert (result.outcome, result.detail) == ("fail", said)
    assert site.cancelled == list(site.jobs)


def test_an_interrupted_round_trip_cancels_its_job(doctor_config: DoctorConfig, site: Site) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    doctor_config.sleep = interrupt
    site.work = lambda job: job
    with pytest.raises(KeyboardInterrupt):
        list(run_checks(doctor_config))
    assert site.cancelled == list(site.jobs)


def test_a_daemon_that_refuses_the_job_is_reported(doctor_config: DoctorConfig, site: Site) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        is_submission = request.method == "POST" and not request.url.query
        return problem(400, "no http sources here") if is_submission else site.handle(request)

    doctor_config.make_client = lambda server, key: Client(
        server, transport=httpx.MockTransport(refuse)
    )
    assert last(doctor_config).detail == "no http sources here [HTTP 400]"


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Cannot write"), by_folder(tmp_path / "missing", b"x"):
        pass


def test_requests_to_unknown_paths_are_rejected() -> None:
    with by_http("127.0.0.1", b"clip") as clip_transport:
        base = clip_transport.source_url.rpartition("/")[0]
        for method, path, data, status in (
            ("GET", "/", None, 404),
            ("GET", clip_transport.output_url, None, 404),
            ("PUT", clip_transport.source_url, b"x", 404),
            ("PUT", f"{base}/other.mp4", b"x", 404),
            ("POST", clip_transport.output_url, b"x", 501),
        ):
            url = path if path.startswith("http") else f"{base}{path}"
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(urllib.request.Request(url, data, method=method))
            assert caught.value.code == status
            caught.value.close()
        assert clip_transport.result() is None


def test_a_damaged_or_too_large_result_is_rejected() -> None:
    with by_http("127.0.0.1", b"clip") as clip_transport:
        for digest, size, status in (("sha-256=:AAAA:", "4", 400), ("", "99999999", 413)):
            connection = http.client.HTTPConnection(
                urlsplit(clip_transport.output_url).netloc, timeout=10
            )
            headers = {"Repr-Digest": digest, "Content-Length": size}
            connection.request("PUT", urlsplit(clip_transport.output_url).path, b"data", headers)
            assert connection.getresponse().status == status
            connection.close()
        assert clip_transport.result() is None
        assert (
            httpx.head(clip_transport.source_url, trust_env=False).headers["Content-Length"] == "4"
        )
