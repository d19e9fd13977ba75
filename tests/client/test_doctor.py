"""`distconv doctor`: each check fails on its own fault, says what to do, and is bounded in time."""

import hashlib
import http.client
import json
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import httpx
import msgspec
import pytest
import trustme
from click.testing import CliRunner, Result
from tests.client.fake import FakeDaemon, found, problem, served

from distconv_client import Client
from distconv_client.config import Settings
from distconv_client.doctor import Finding, Patient, examine, finding, machine
from distconv_client.doctor.clip import FRAMES, make_clip
from distconv_client.doctor.machine import EngineReport, check_disk, check_ffmpeg
from distconv_client.doctor.network import Network, Target, check_name, check_port, check_tls
from distconv_client.doctor.visit import by_folder, by_http
from distconv_client.errors import BadInput
from distconv_client.main import cli
from distconv_client.retry import RetryPolicy
from distconvd.model import FailureClass, Job, JobResult, JobStatus

REPORT = EngineReport(
    None, "/usr/bin/ffmpeg", "7.1", {"h264": "libx264", "vp9": "libvpx-vp9"}, "/", 9e4, 512.0
)
ENGINE = {
    "engine_id": "attic", "status": "idle", "benchmark_time": 1.0, "supported_codecs": ["h264"],
}  # fmt: skip


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
    """Do what an engine does: fetch, make something, bring it."""
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


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def port() -> Iterator[int]:
    """A port that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def patient(site: Site, port: int) -> Patient:
    def make_client(server: str, key: str | None) -> Client:
        transport = httpx.MockTransport(site.handle)
        return Client(server, key, retry=RetryPolicy(retries=0), transport=transport)

    return Patient(
        Settings(f"http://127.0.0.1:{port}", None),
        make_client=make_client,
        transport=httpx.MockTransport(site.handle),
        ask_engine=lambda work_dir: REPORT,
        sleep=lambda seconds: None,
    )


def outcomes(patient: Patient) -> dict[str, str]:
    return {one.check: one.outcome for one in examine(patient)}


def failed(patient: Patient) -> Finding:
    """Return the one check that fails; all that follows it is skipped or fine."""
    (one,) = [one for one in examine(patient) if one.outcome == "fail"]
    assert one.remedy
    return one


CHECKS = (
    *("name", "port", "tls", "http", "clock", "key", "version", "ready", "engines", "ffmpeg"),
    *("disk", "round trip"),
)


def test_a_healthy_site_passes_every_check_in_order(patient: Patient) -> None:
    results = list(examine(patient))
    assert tuple(one.check for one in results) == CHECKS
    assert {one.check for one in results if one.outcome != "ok"} == {"tls"}
    assert results[5].told == "none is needed; roles: read, submit, engine, admin"
    assert results[-1].told.startswith("attic made 25 frames of h264 in ")


# --------------------------------------------------------------------------------------- the way


def target(url: str) -> Target:
    return Target(httpx.URL(url))


def test_a_name_without_an_address_is_told() -> None:
    def resolve(*args: Any, **more: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    result = check_name(target("http://nowhere.invalid"), Network(resolve=resolve))
    assert (result.outcome, result.told) == (
        "fail", "nowhere.invalid has no address: Name or service not known",
    )  # fmt: skip
    assert "/etc/hosts" in result.remedy


def test_a_name_server_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distconv_client.doctor.network.CHECK_S", 0.05)
    hang = threading.Event()
    network = Network(resolve=lambda *a, **k: [hang.wait(30)])
    result = check_name(target("http://slow.invalid"), network)
    hang.set()
    assert (result.outcome, result.told) == ("fail", "slow.invalid: no answer within 0.05 s")


def test_a_name_that_is_no_name_is_told() -> None:
    result = check_name(target("http://" + "a" * 70 + ".invalid"), Network())
    assert result.outcome == "fail"


def test_a_port_that_nobody_listens_at_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    result, here = check_port(target(f"http://127.0.0.1:{closed}"), Network())
    assert (result.told, here) == (f"nobody listens at 127.0.0.1:{closed}", None)
    assert "Start distconvd" in result.remedy


@pytest.mark.parametrize(
    "error,said",
    [
        (TimeoutError(), "does not answer within 10 s"),
        (OSError(113, "No route to host"), "cannot be reached: No route to host"),
    ],
)
def test_a_way_that_is_blocked_is_told(error: OSError, said: str) -> None:
    def connect(*args: Any, **more: Any) -> socket.socket:
        raise error

    result, _ = check_port(target("http://10.0.0.1"), Network(connect=connect))
    assert result.outcome == "fail"
    assert said in result.told
    assert result.remedy


def test_what_needs_a_failed_check_is_skipped_and_this_machine_is_looked_at_all_the_same(
    patient: Patient,
) -> None:
    def refuse(*args: Any, **more: Any) -> socket.socket:
        raise ConnectionRefusedError

    patient.doors = Network(connect=refuse)
    results = {one.check: one for one in examine(patient)}
    assert tuple(results) == CHECKS
    fine = [check for check, one in results.items() if one.outcome == "ok"]
    assert fine == ["name", "ffmpeg", "disk"]
    assert results["round trip"].told == "needs what failed before: port"


def test_behind_a_proxy_the_way_is_the_proxys(patient: Patient) -> None:
    patient.settings = Settings("http://dispatch.invalid", None)
    patient.doors = Network(
        proxies=lambda: {"http": "http://proxy.invalid:3128"}, is_bypassed=lambda host: False
    )
    first = next(iter(examine(patient)))
    assert first == Finding("name", "skip", "requests go through the proxy proxy.invalid")


# ------------------------------------------------------------------------------------------- TLS


class Authority(NamedTuple):
    """An authority, and the contexts of servers that it makes."""

    ca: trustme.CA

    def server(self, name: str, not_after: datetime | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(name, not_after=not_after).configure_cert(context)
        return context

    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(trustme.CA())


@contextmanager
def speaking_tls(context: ssl.SSLContext | None) -> Iterator[Target]:
    """Serve one handshake; without a context, answer as plain HTTP does."""

    def serve() -> None:
        plain, _ = server.accept()
        with plain:
            if context is None:
                plain.recv(1000)
                plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return
            try:
                context.wrap_socket(plain, server_side=True).close()
            except OSError:
                pass  # the client did not like what it saw

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield target(f"https://localhost:{server.getsockname()[1]}")
        thread.join(20)


def tls_finding(server: ssl.SSLContext | None, client: ssl.SSLContext) -> Finding:
    with speaking_tls(server) as where:
        return check_tls(where, Network(tls=lambda: client))[0]


def test_a_good_certificate_is_fine(authority: Authority) -> None:
    later = datetime.now(UTC) + timedelta(days=90.5)
    server = authority.server("localhost", later)
    result = tls_finding(server, authority.trusting())
    assert result == Finding("tls", "ok", "the certificate is good for 90 more days")


@pytest.mark.parametrize(
    "name,days,trusted,said,remedy",
    [
        ("localhost", 90, False, "certificate", "SSL_CERT_FILE"),
        ("elsewhere", 90, True, "Hostname mismatch", "in the certificate"),
        ("localhost", -1, True, "expired", "Renew"),
        ("localhost", 3, True, "good for 3 more days", "Renew"),
    ],
)
def test_a_certificate_that_is_not_good_is_told_with_what_to_do(
    authority: Authority, name: str, days: int, trusted: bool, said: str, remedy: str
) -> None:
    server = authority.server(name, datetime.now(UTC) + timedelta(days=days, hours=1))
    client = authority.trusting() if trusted else ssl.create_default_context()
    result = tls_finding(server, client)
    assert result.outcome == "fail"
    assert said in result.told
    assert remedy in result.remedy


def test_a_port_without_tls_is_told(authority: Authority) -> None:
    result = tls_finding(None, authority.trusting())
    assert result.outcome == "fail"
    assert "write http://" in result.remedy


def test_a_certificate_that_expires_soon_hinders_nothing_today(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = Finding("tls", "fail", "the certificate is good for 3 more days", "Renew it.")
    monkeypatch.setattr("distconv_client.doctor.network.check_tls", lambda *a: (soon, True))
    assert outcomes(patient)["round trip"] == "ok"


# ------------------------------------------------------------------------------------ the daemon


def test_a_server_that_is_no_distconvd_is_told(patient: Patient, site: Site) -> None:
    site.replies["GET /livez"] = httpx.Response(200, text="<html>It works!</html>")
    one = failed(patient)
    assert (one.check, one.told) == ("http", "/livez is answered with 200, not as distconvd does")


def test_a_server_that_speaks_no_http_is_told(patient: Patient) -> None:
    def hang_up(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("illegal status line")

    patient.transport = httpx.MockTransport(hang_up)
    one = failed(patient)
    assert (one.check, "https://" in one.remedy) == ("http", True)


@pytest.mark.parametrize("ahead_s,word", [(-95, "ahead of"), (95, "behind")])
def test_clocks_that_differ_are_told_with_their_direction(
    patient: Patient, site: Site, ahead_s: int, word: str
) -> None:
    date = formatdate(time.time() + ahead_s, usegmt=True)
    site.replies["GET /livez"] = httpx.Response(200, text="OK", headers={"Date": date})
    one = failed(patient)
    assert one.check == "clock"
    assert f"this machine is {word} the daemon" in one.told
    assert outcomes(patient)["round trip"] == "ok"


def test_a_reply_without_a_date_tells_nothing_of_the_clock(patient: Patient, site: Site) -> None:
    site.replies["GET /livez"] = httpx.Response(200, text="OK")
    assert outcomes(patient)["clock"] == "skip"


ROLES = ("GET /version", "POST /jobs/", "POST /jobs/0_0/progress", "DELETE /engines/")


@pytest.mark.parametrize(
    "key,status,said",
    [
        (None, 401, "the daemon asks for a key, and none is given"),
        ("wrong", 401, "the daemon does not know this key"),
        ("poor", 403, "this key may do nothing"),
    ],
)
def test_a_key_that_opens_nothing_is_told(
    patient: Patient, site: Site, key: str | None, status: int, said: str
) -> None:
    patient.settings = Settings(patient.settings.server, key)
    site.replies |= {path: problem(status, "no") for path in ROLES}
    one = failed(patient)
    assert (one.check, one.told) == ("key", said)


def test_an_engines_key_is_fine_and_the_rest_is_skipped_with_the_reason(
    patient: Patient, site: Site
) -> None:
    patient.settings = Settings(patient.settings.server, "engine-key")
    site.replies |= {path: problem(403, "no") for path in ROLES if "progress" not in path}
    results = {one.check: one for one in examine(patient)}
    assert results["key"] == Finding("key", "ok", "roles: engine")
    skipped = [check for check, one in results.items() if one.outcome == "skip"]
    assert skipped == ["tls", "version", "engines", "round trip"]


def test_a_daemon_of_another_version_is_told(patient: Patient, site: Site) -> None:
    site.replies["GET /version"] = found({"version": "7.2.0"})
    one = failed(patient)
    assert (one.check, one.told[:26]) == ("version", "the daemon is 7.2.0, this ")


def test_a_daemon_that_is_not_ready_is_told_with_its_causes(patient: Patient, site: Site) -> None:
    body = {"ready": False, "causes": {"store": "no space left"}}
    site.replies["GET /readyz"] = httpx.Response(503, json=body)
    one = failed(patient)
    assert (one.check, one.told) == ("ready", "it accepts none: store: no space left")
    assert outcomes(patient)["round trip"] == "skip"


@pytest.mark.parametrize(
    "engines,said",
    [
        ([], "none has registered"),
        ([ENGINE | {"status": "offline"}], "none of 1 can work: attic is offline"),
        ([ENGINE | {"benchmark_time": None}], "none of 1 can work: attic is idle"),
        ([ENGINE | {"status": "quarantined", "engine_id": "\x1b"}], "none of 1 can work: \\x1b is"),
    ],
)
def test_a_farm_without_an_engine_that_works_is_told(
    patient: Patient, site: Site, engines: list[dict[str, Any]], said: str
) -> None:
    site.engines = engines
    one = failed(patient)
    assert one.check == "engines"
    assert one.told.startswith(said)


def test_a_server_that_dribbles_is_not_waited_for(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()

    def dribble(request: httpx.Request) -> httpx.Response:
        hang.wait(30)
        return httpx.Response(200)

    patient.transport = httpx.MockTransport(dribble)
    monkeypatch.setattr("distconv_client.doctor.examination.SERVICE_S", 0.05)
    assert failed(patient).told.endswith("no answer within 0.05 s")
    hang.set()


def test_a_daemon_that_dies_in_the_middle_is_told(patient: Patient, site: Site) -> None:
    site.replies["GET /readyz"] = httpx.Response(503, text="<html>")
    assert failed(patient).told.startswith("the daemon stopped answering as one: ")


# ---------------------------------------------------------------------------------- this machine


@pytest.mark.parametrize(
    "report,outcome,said",
    [
        (None, "skip", "no engine is installed here"),
        (REPORT, "ok", "h264 by libx264, vp9 by libvpx-vp9; it cannot make hevc, vp8, av1"),
        (EngineReport(error="There is no ffmpeg"), "fail", "There is no ffmpeg"),
        (EngineReport(None, "/f", "7.1", {}), "fail", "7.1 at /f encodes none of h264"),
    ],
)
def test_ffmpeg_is_judged_by_what_it_encodes(
    report: EngineReport | None, outcome: str, said: str
) -> None:
    result = check_ffmpeg(report)
    assert result.outcome == outcome
    assert said in result.told
    assert bool(result.remedy) == (outcome == "fail")


def test_a_disk_below_an_engines_reserve_is_told(tmp_path: Path) -> None:
    low = EngineReport(None, "f", "7", {"h264": "x"}, str(tmp_path), 100.0, 512.0)
    result = check_disk(low)
    assert (result.outcome, result.told) == ("fail", f"100 MB free in {tmp_path}, 512 MB needed")


@pytest.mark.parametrize(
    "work_dir,outcome,said",
    [
        ("/nowhere/at/all", "fail", "there is no folder /nowhere/at/all to be seen"),
        ("distconv-engine-work", "skip", "no engine has worked in this folder"),
        (None, "skip", "where the engine works is not known"),
    ],
)
def test_a_work_directory_that_is_not_there_is_never_fine(
    work_dir: str | None, outcome: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = check_disk(EngineReport(work_dir=work_dir, free_mb=9e9, reserve_mb=512.0))
    assert result.outcome == outcome
    assert said in result.told


def test_without_an_engine_the_folder_that_was_named_needs_room(tmp_path: Path) -> None:
    result = check_disk(None, tmp_path, free_mb=lambda folder: 7e3 if folder == tmp_path else 0.0)
    assert (result.outcome, result.told) == ("ok", f"7.00 GB free in {tmp_path}")


ECHO = """
import json, os, sys
names = ("DISTCONV_CONFIG", "DISTCONV_WORK_DIR")
print(json.dumps({"work_dir": "|".join(os.environ.get(name, "-") for name in names)}))
"""


@pytest.mark.parametrize(
    "environ,given,config,work_dir",
    [
        ({}, None, "engine.toml", "state"),
        ({}, "mine", "engine.toml", "mine"),
        ({"DISTCONV_WORK_DIR": "/w"}, None, "engine.toml", "/w"),
        ({"DISTCONV_CONFIG": "/c"}, None, "/c", "-"),
    ],
)
def test_an_installed_engine_is_asked_under_the_settings_of_its_unit(
    environ: dict[str, str], given: str | None, config: str, work_dir: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "echoing").mkdir()
    (tmp_path / "echoing" / "selftest.py").write_text(ECHO)
    (tmp_path / "engine.toml").touch()
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(machine, "PACKAGE", "echoing")
    monkeypatch.setattr(machine, "UNIT_CONFIG", tmp_path / "engine.toml")
    monkeypatch.setattr(machine, "UNIT_WORK_DIR", tmp_path / "state")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    report = machine.ask_engine(tmp_path / given if given else None)
    assert report is not None
    assert str(report.work_dir).replace(f"{tmp_path}/", "") == f"{config}|{work_dir}"


def test_without_an_engine_the_temporary_folder_needs_room() -> None:
    assert check_disk(None).outcome == "ok"
    result = check_disk(None, free_mb=lambda folder: 3.0)
    assert result.outcome == "fail"
    assert "TMPDIR" in result.remedy


def test_an_engine_package_that_does_not_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGE", "json")
    report = machine.ask_engine()
    assert report is not None
    assert "the engine package does not run: " in str(report.error)
    monkeypatch.setattr(machine, "PACKAGE", "no_such_package")
    assert machine.ask_engine() is None


def test_an_encoder_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hanging").mkdir()
    (tmp_path / "hanging" / "selftest.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(machine, "PACKAGE", "hanging")
    monkeypatch.setattr(machine, "SELFTEST_S_MAX", 0.3)
    report = machine.ask_engine()
    assert report is not None
    assert report.error == "the test encodes took longer than 0.3 s"


def test_a_call_without_a_bound_of_its_own_gets_one() -> None:
    assert finding.within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        finding.within(5, lambda: 1 // 0)
    hang = threading.Event()
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        finding.within(0.01, lambda: hang.wait(30))
    hang.set()


# ------------------------------------------------------------------------------ the round trip


def last(patient: Patient) -> Finding:
    return list(examine(patient))[-1]


def test_the_round_trip_leaves_nothing_in_a_shared_folder(
    patient: Patient, tmp_path: Path, site: Site
) -> None:
    patient.clip_dir = tmp_path
    assert last(patient).outcome == "ok"
    assert list(tmp_path.iterdir()) == []
    site.work = lambda job: job
    patient.timeout_s = 0
    assert last(patient).outcome == "fail"
    assert list(tmp_path.iterdir()) == []


def test_the_job_is_urgent_small_and_marked(patient: Patient, site: Site) -> None:
    last(patient)
    (job,) = site.jobs.values()
    assert (job.priority, job.max_retries, job.labels) == (2, 0, {"distconv": "doctor"})
    assert job.job_size == len(make_clip()) / 1e6
    assert site.cancelled == []


def test_a_codec_is_asked_for_that_an_engine_makes(patient: Patient, site: Site) -> None:
    site.engines = [ENGINE | {"supported_codecs": ["vp9", "av1"]}]
    last(patient)
    (job,) = site.jobs.values()
    assert job.target_codec == "vp9"


def ended(job: Job, **fields: Any) -> Job:
    return msgspec.structs.replace(job, **fields)


Work = Callable[[Job], Job]
FAULTS: dict[str, tuple[Work, str, str]] = {
    "failed": (
        lambda job: ended(
            job, status=JobStatus.FAILED_PERMANENTLY, error_message="The source cannot be read.",
            error_class=FailureClass.INPUT,
        ),
        "the job failed: The source cannot be read.",
        "if the engine cannot reach this machine (127.0.0.1), name a folder",
    ),
    "fails for now": (
        lambda job: ended(job, error_message="connection refused", attempt=1),
        "the job failed: connection refused",
        "distconv attempts --log",
    ),
    "nothing came": (
        lambda job: ended(job, status=JobStatus.COMPLETED, assigned_engine="attic"),
        "attic says that it is done, and the result is not where it should be",
        "distconv status",
    ),
    "other bytes": (
        lambda job: encode(job, sha256="0" * 64),
        "what came back is not what attic says that it made",
        "changes files on the way",
    ),
    "frames lost": (lambda job: encode(job, video_frames=24), "24 frames came back of 25", "log"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_round_trip_that_fails_says_how_and_what_to_do(
    patient: Patient, site: Site, fault: str
) -> None:
    site.work, told, remedy = FAULTS[fault]
    result = last(patient)
    assert (result.outcome, result.told) == ("fail", told)
    assert remedy in result.remedy


@pytest.mark.parametrize(
    "status,said",
    [
        (JobStatus.PENDING, "the job still waits after 0 s: All are busy."),
        (JobStatus.ASSIGNED, "the job is - after 0 s on attic"),
    ],
)
def test_a_round_trip_that_takes_too_long_is_cancelled(
    patient: Patient, site: Site, status: JobStatus, said: str
) -> None:
    patient.timeout_s = 0
    site.work = lambda job: ended(job, status=status, assigned_engine="attic")
    result = last(patient)
    assert (result.outcome, result.told) == ("fail", said)
    assert site.cancelled == list(site.jobs)


def test_an_interrupted_round_trip_cancels_its_job(patient: Patient, site: Site) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    patient.sleep = interrupt
    site.work = lambda job: job
    with pytest.raises(KeyboardInterrupt):
        list(examine(patient))
    assert site.cancelled == list(site.jobs)


def test_a_daemon_that_refuses_the_job_is_told(patient: Patient, site: Site) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        is_submission = request.method == "POST" and not request.url.query
        return problem(400, "no http sources here") if is_submission else site.handle(request)

    patient.make_client = lambda server, key: Client(server, transport=httpx.MockTransport(refuse))
    assert last(patient).told == "no http sources here [HTTP 400]"


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Can not write"), by_folder(tmp_path / "missing", b"x"):
        pass


def test_nobody_gets_the_clip_or_brings_anything_who_does_not_know_the_way() -> None:
    with by_http("127.0.0.1", b"clip") as visit:
        base = visit.source_url.rpartition("/")[0]
        for method, path, data, status in (
            ("GET", "/", None, 404),
            ("GET", visit.output_url, None, 404),
            ("PUT", visit.source_url, b"x", 404),
            ("PUT", f"{base}/other.mp4", b"x", 404),
            ("POST", visit.output_url, b"x", 501),
        ):
            url = path if path.startswith("http") else f"{base}{path}"
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(urllib.request.Request(url, data, method=method))
            assert caught.value.code == status
            caught.value.close()
        assert visit.result() is None


def test_a_result_that_was_damaged_or_is_too_large_is_not_taken() -> None:
    with by_http("127.0.0.1", b"clip") as visit:
        for digest, size, status in (("sha-256=:AAAA:", "4", 400), ("", "99999999", 413)):
            connection = http.client.HTTPConnection(urlsplit(visit.output_url).netloc, timeout=10)
            headers = {"Repr-Digest": digest, "Content-Length": size}
            connection.request("PUT", urlsplit(visit.output_url).path, b"data", headers)
            assert connection.getresponse().status == status
            connection.close()
        assert visit.result() is None
        assert httpx.head(visit.source_url, trust_env=False).headers["Content-Length"] == "4"


# --------------------------------------------------------------------------------- the command


@pytest.fixture
def call(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    monkeypatch.setattr(machine, "PACKAGE", "no_such_package")
    with served(site) as url:
        yield lambda *words: CliRunner().invoke(cli, ["doctor", "--server", url, *words])


def test_the_command_prints_a_line_a_check_and_exits_0(call: Callable[..., Result]) -> None:
    result = call()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == len(CHECKS)
    assert lines[0] == "ok    name       127.0.0.1 is 127.0.0.1"


def test_the_command_exits_1_on_a_failure_with_the_remedy_below_it(
    call: Callable[..., Result], site: Site
) -> None:
    site.engines = []
    result = call()
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("fail"))
    assert lines[at] == "fail  engines    none has registered"
    assert lines[at + 1].strip().startswith("Start one: ")


def test_the_command_prints_json(call: Callable[..., Result]) -> None:
    documents = [json.loads(line) for line in call("--json").stdout.splitlines()]
    assert [document["check"] for document in documents] == list(CHECKS)


@pytest.mark.parametrize(
    "words",
    [
        ["--timeout", "0"],
        ["--clip-dir", "/no/such/folder"],
        ["--work-dir", "/no/such/folder"],
        ["--server", "ftp://x"],
    ],
)
def test_what_is_written_wrongly_exits_2(call: Callable[..., Result], words: list[str]) -> None:
    assert call(*words).exit_code == 2


@pytest.mark.e2e
def test_the_engines_selftest_finds_a_real_ffmpeg_and_its_work_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DISTCONV_WORK_DIR", str(tmp_path / "not" / "made" / "yet"))
    report = machine.ask_engine()
    assert report is not None
    assert report.error is None
    assert {"h264", "hevc", "vp9"} <= report.encoders.keys()
    assert (report.work_dir, (report.free_mb or 0) > 0) == (str(tmp_path / "not/made/yet"), True)
    monkeypatch.setenv("DISTCONV_FFMPEG", sys.executable)
    broken = machine.ask_engine()
    assert broken is not None
    assert "does not run" in str(broken.error)
