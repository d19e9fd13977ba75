"""`contrib/nginx/distconv.conf`, run by a real nginx in front of a real daemon."""

import base64
import hashlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.kit import JOB, KEY, Running, start
from tests.engine.clips import Clips
from tests.engine.conftest import benchmark, capabilities, clips, measured, tested, tools
from tests.engine.measured import Measured
from tests.operators import proxy as kit
from tests.operators.outside import CONTRIB, program
from tests.operators.proxy import Proxy

__all__ = ["benchmark", "capabilities", "clips", "measured", "tested", "tools"]

pytestmark = pytest.mark.e2e

MEGABYTE = 1_000_000
PIECE = os.urandom(MEGABYTE)
POLL = {"Prefer": "wait=60", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def nginx() -> str:
    return program("nginx")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(nginx: str, daemon: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with kit.running(nginx, tmp_path_factory.mktemp("nginx"), daemon.port) as running:
        yield running


def wait_until(seen: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Poll until another process has done something."""
    end = time.monotonic() + timeout_s
    while not seen():
        assert time.monotonic() < end, "not seen in time"
        time.sleep(0.02)


def digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def submit(proxy: Proxy, **fields: Any) -> str:
    status, _, body = proxy.ask("POST", "/jobs/", json.dumps(JOB | fields))
    assert status == 200, body
    job_id: str = json.loads(body)["job_id"]
    return job_id


# --------------------------------------------------------------------------------- configuration


def test_nginx_accepts_the_file_without_a_warning(nginx: str, tmp_path: Path) -> None:
    kit.make_certificate(tmp_path)
    main = kit.render(tmp_path, 1, kit.free_port(), kit.free_port())
    done = subprocess.run(
        [nginx, "-t", "-p", str(tmp_path), "-c", str(main)],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    printed = done.stderr + (tmp_path / "error.log").read_text()
    assert done.returncode == 0, printed
    assert "[warn]" not in printed


def test_its_timeouts_are_longer_than_the_daemons() -> None:
    from distconvd.api.replies import WAIT_S_MAX
    from distconvd.edge.limits import EdgeLimits

    text = (CONTRIB / "nginx" / "distconv.conf").read_text()
    edge = EdgeLimits()
    assert "proxy_read_timeout 75s;" in text
    assert WAIT_S_MAX < 75
    assert "    keepalive_timeout 45s;" in text  # the upstream's
    assert edge.idle_timeout_s > 45
    assert "client_max_body_size 2m;" in text
    assert edge.body_bytes_max < 2 * 1024 * 1024


def test_http_is_redirected_to_https_with_its_method(proxy: Proxy) -> None:
    address = http.client.HTTPConnection("127.0.0.1", proxy.http_port, timeout=10)
    with closing(address) as connection:
        connection.request("POST", "/jobs/?dry_run=true", "{}", {"Host": "distconv.example.com"})
        with connection.getresponse() as reply:
            place = reply.getheader("Location")
    assert (reply.status, place) == (308, "https://distconv.example.com/jobs/?dry_run=true")


# -------------------------------------------------------------------------------------- requests


def test_curl_reaches_the_daemon_by_tls(proxy: Proxy) -> None:
    assert proxy.curl("/").stdout == b"OK"
    printed = json.loads(proxy.curl("/version").stdout)
    assert printed["name"] == "distconvd"
    head = proxy.curl("/", "-I").stdout.decode().lower()
    assert "strict-transport-security: max-age=" in head


@pytest.mark.parametrize(
    "path",
    [
        "/engines/attic%2F1",
        "/media/a%2Fb",
        "//jobs/",
        "/media/a/./b",
        "/jobs/%31",
        "/jobs/?limit=%zz",
    ],
)
def test_a_path_reaches_the_daemon_unchanged(proxy: Proxy, daemon: Running, path: str) -> None:
    status, headers, body = proxy.ask("GET", path)
    straight, said = daemon.ask("GET", path)
    printed = [json.loads(text) for text in (body, said)]
    for document in printed:
        document.pop("request_id", None)
    assert (status, printed[0]) == (straight, printed[1])
    logged = f" GET {path.partition('?')[0]} {status} "
    request_id = headers["x-request-id"]
    wait_until(lambda: request_id in daemon.log)
    assert logged in next(line for line in daemon.log.splitlines() if request_id in line)


def test_the_daemons_problems_reach_the_client_unchanged(proxy: Proxy) -> None:
    refused = proxy.curl("/jobs/", "-i", key=None).stdout.decode()
    assert " 401 " in refused.splitlines()[0]
    assert "WWW-Authenticate: Bearer" in refused
    assert "Unauthorized: Missing 'X-API-Key' header." in refused


def test_one_request_id_is_in_both_logs_and_the_reply(proxy: Proxy, daemon: Running) -> None:
    _, headers, _ = proxy.ask("GET", "/version")
    made = headers["x-request-id"]
    assert proxy.ask("GET", "/version", X_Request_Id="trace-1")[1]["x-request-id"] == "trace-1"
    assert "a b" not in proxy.ask("GET", "/version", X_Request_Id="a b")[1]["x-request-id"]
    wanted = {f"request_id={made}", "request_id=trace-1"}
    wait_until(lambda: all(words in proxy.access_log for words in wanted))
    wait_until(lambda: all(words in daemon.log for words in wanted))


def test_etags_stay_strong_so_that_if_match_works(proxy: Proxy) -> None:
    job_id = submit(proxy, not_before=4_000_000_000_000)
    headers = proxy.ask("GET", f"/jobs/{job_id}", Accept_Encoding="gzip")[1]
    assert not headers["etag"].startswith("W/")
    status = proxy.ask("DELETE", f"/jobs/{job_id}", If_Match=headers["etag"])[0]
    assert status == 200


def test_a_long_body_gets_a_problem_from_the_daemon_and_from_nginx(proxy: Proxy) -> None:
    for size in (int(1.5 * MEGABYTE), 3 * MEGABYTE):
        status, headers, body = proxy.ask("POST", "/jobs/", b" " * size)
        assert (status, headers["content-type"]) == (413, "application/problem+json")
        assert json.loads(body)["type"] == "urn:distconv:problem:body-too-large"


def test_too_many_requests_get_a_retry_after_in_json(nginx: str, tmp_path: Path) -> None:
    burst, rate = 400, 100
    text = kit.CONFIGURATION.read_text()
    assert f"burst={burst} nodelay" in text
    assert f"rate={rate}r/s" in text
    # All requests are sent immediately, without a daemon: within a second nginx would allow more of them.
    asked = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * (burst + 2 * rate)
    with (
        kit.running(nginx, tmp_path, kit.free_port()) as proxy,
        closing(proxy.connect()) as connection,
    ):
        connection.connect()
        connection.sock.sendall(asked)
        printed = b""
        while b"HTTP/1.1 429 " not in printed or not printed.endswith(b"}"):
            piece = connection.sock.recv(1_000_000)
            assert piece, "everything was let through"
            printed += piece
        refused = printed.partition(b"HTTP/1.1 429 ")[2]
        head, _, rest = refused.partition(b"\r\n\r\n")
        assert b"\r\nRetry-After: 1" in head
        assert b"\r\nContent-Type: application/problem+json" in head
        document = json.loads(rest.partition(b"HTTP/1.1")[0])
        assert document["type"] == "urn:distconv:problem:too-many-requests"
        wait_until(lambda: proxy.ask("GET", "/livez")[0] == 503)  # which is the daemon's absence


# --------------------------------------------------------------------------------- long requests


def test_events_arrive_immediately(proxy: Proxy) -> None:
    # The reader's timeout is shorter than the 15 s after which a comment would flush the buffer.
    with closing(proxy.connect(timeout_s=10)) as connection:
        connection.request("GET", "/api/v1/events?kind=job.submitted", headers=kit.keyed({}))
        with connection.getresponse() as reply:
            assert reply.getheader("Content-Type") == "text/event-stream"
            assert reply.readline() == b": distconvd events\n"
            for _ in range(3):
                job_id = submit(proxy)
                data = next(line for line in reply if line.startswith(b"data: "))
                assert json.loads(data.removeprefix(b"data: "))["job_id"] == job_id
                assert proxy.ask("DELETE", f"/jobs/{job_id}")[0] == 200


def test_a_long_poll_is_answered_when_there_is_work(proxy: Proxy, daemon: Running) -> None:
    beat = {"engine_id": "poller", "supported_codecs": ["poll"], "benchmark_time": 1.0}
    proxy.ask("POST", "/engines/heartbeat", json.dumps(beat))
    with closing(proxy.connect(timeout_s=20)) as connection:
        headers = {**kit.keyed({}), **POLL}
        connection.request("POST", "/assign_job/", '{"engine_id": "poller"}', headers)
        job_id = submit(proxy, target_codec="poll")
        with connection.getresponse() as reply:
            assert (reply.status, json.loads(reply.read())["job_id"]) == (200, job_id)
    proxy.ask("DELETE", f"/jobs/{job_id}")


def _poll_and_leave(proxy: Proxy, daemon: Running, patience_s: float) -> bool:
    """Ask for work, wait in vain and disconnect; return whether the daemon had got the request."""
    request_id = f"request_id=leaver-{patience_s:g}"
    with closing(proxy.connect(timeout_s=patience_s)) as connection:
        headers = {**kit.keyed({"X_Request_Id": request_id.partition("=")[2]}), **POLL}
        connection.request("POST", "/assign_job/", '{"engine_id": "leaver"}', headers)
        with pytest.raises(TimeoutError):
            connection.getresponse()
    wait_until(lambda: request_id in proxy.access_log)
    (line,) = [line for line in proxy.access_log.splitlines() if request_id in line]
    assert " 499 " in line
    if "upstream=-" in line:
        return False  # disconnected before nginx had passed it on
    wait_until(lambda: request_id in daemon.log)
    return True


def test_an_engine_that_disconnects_while_polling_gets_no_job(
    proxy: Proxy, daemon: Running
) -> None:
    beat = {"engine_id": "leaver", "supported_codecs": ["leave"], "benchmark_time": 1.0}
    proxy.ask("POST", "/engines/heartbeat", json.dumps(beat))
    assert any(_poll_and_leave(proxy, daemon, patience_s) for patience_s in (0.5, 3, 10))
    job_id = submit(proxy, target_codec="leave")
    assert json.loads(proxy.ask("GET", f"/jobs/{job_id}")[2])["status"] == "pending"
    proxy.ask("DELETE", f"/jobs/{job_id}")


# ----------------------------------------------------------------------------------------- files


def test_a_large_file_is_uploaded_and_downloaded_unchanged(proxy: Proxy, tmp_path: Path) -> None:
    source, back = tmp_path / "large.mp4", tmp_path / "back.mp4"
    content = PIECE * 64
    source.write_bytes(content)
    done = proxy.curl(
        "/media/in/large.mp4", "-T", str(source), "-w", "%{http_code}",
        "-H", "Content-Type: video/mp4", "-H", f"Repr-Digest: {digest(content)}",
    )  # fmt: skip
    assert done.stdout.endswith(b"201"), done
    # Slower than the daemon sends: a proxy could buffer the rest on its disk, if it were allowed to.
    slow = ("--limit-rate", "150M")
    assert proxy.curl("/media/in/large.mp4", "-o", str(back), *slow).returncode == 0
    assert back.read_bytes() == content
    part = proxy.curl("/media/in/large.mp4", "-r", "1000000-1000009").stdout
    assert part == PIECE[:10]
    stored = [line for line in proxy.errors.splitlines() if "temporary file" in line]
    assert [line for line in stored if "/media/" in line] == []


def test_an_upload_is_passed_on_as_it_arrives_and_can_be_resumed(proxy: Proxy) -> None:
    content = PIECE * 16
    identity = {"Repr-Digest": digest(content), "X-API-Key": KEY}

    def offset() -> int:
        asked = {"Repr_Digest": digest(content), "X_Upload_Length": str(len(content))}
        return int(proxy.ask("HEAD", "/media/broken.mp4", **asked)[1]["x-upload-offset"])

    with closing(proxy.connect()) as connection:
        connection.putrequest("PUT", "/media/broken.mp4")
        for name, value in (*identity.items(), ("Content-Length", str(len(content)))):
            connection.putheader(name, value)
        connection.endheaders(content[: 8 * MEGABYTE])
        wait_until(lambda: offset() >= 4 * MEGABYTE)  # while the client has not sent the rest
    at = offset()
    rest = {"Repr_Digest": digest(content)}
    rest["Content_Range"] = f"bytes {at}-{len(content) - 1}/{len(content)}"
    status, _, body = proxy.ask("PUT", "/media/broken.mp4", content[at:], **rest)
    if status == 409:  # the interrupted upload was still growing when its offset was read
        at = offset()
        rest["Content_Range"] = f"bytes {at}-{len(content) - 1}/{len(content)}"
        status, _, body = proxy.ask("PUT", "/media/broken.mp4", content[at:], **rest)
    assert status == 201, body
    assert json.loads(body)["sha256"] == hashlib.sha256(content).hexdigest()


def test_an_upload_without_a_key_gets_401_and_not_502(proxy: Proxy, tmp_path: Path) -> None:
    source = tmp_path / "large.mp4"
    source.write_bytes(PIECE * 8)
    done = proxy.curl("/media/none.mp4", "-T", str(source), "-w", "%{http_code}", key=None)
    assert done.stdout.endswith(b"401"), done


# --------------------------------------------------------------------------------------- engines


def test_an_engine_works_through_it_by_websocket(
    proxy: Proxy, daemon: Running, clips: Clips, measured: Measured, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    measured.keep_in(work)
    argv = [sys.executable, "-m", "distconv_engine.main", "--server", proxy.url]
    argv += ["--work-dir", str(work), "--engine-id", "behind-nginx", "--disk-reserve-mb", "0"]
    argv += ["--source-root", str(clips.folder)]
    environ = os.environ | {"DISTCONV_API_KEY": KEY, "SSL_CERT_FILE": str(proxy.authority)}
    log = tmp_path / "engine.log"
    with log.open("wb") as file:
        engine = subprocess.Popen(argv, env=environ, stdout=file, stderr=file)
    try:
        wait_until(lambda: b"distconv_websocket_sessions 1.0" in daemon.ask("GET", "/metrics")[1])
        job_id = submit(proxy, source_url=clips.plain().as_uri(), target_codec="h264", job_size=0.1)
        wait_until(lambda: daemon.jobs()[job_id]["status"] in ("completed", "failed_permanently"))
        job = daemon.jobs()[job_id]
        assert job["status"] == "completed", (job, log.read_text())
        place = job["output_url"].partition("/media/")[2]
        content = proxy.curl(f"/media/{place}").stdout
        assert hashlib.sha256(content).hexdigest() == job["result"]["sha256"]
    finally:
        engine.terminate()
        engine.wait(20)
    wait_until(lambda: '"GET /engines/behind-nginx/ws" 101' in proxy.access_log)


def test_a_daemon_that_is_unavailable_is_reported_in_json(nginx: str, tmp_path: Path) -> None:
    with kit.running(nginx, tmp_path, kit.free_port()) as proxy:
        status, headers, body = proxy.ask("GET", "/jobs/")
        assert (status, headers["retry-after"]) == (503, "2")
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["type"] == "urn:distconv:problem:unavailable"
        # An engine that asks with a body gets the same reply.
        assert proxy.ask("POST", "/assign_job/", "{}")[0] == 503
