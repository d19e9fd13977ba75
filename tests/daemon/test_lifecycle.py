"""A daemon's end and its next start: drains, kills, state files of every kind, a full disk."""

import http.client
import json
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests import originals
from tests.daemon.kit import COMMAND, JOB, KEY, Running, environment, start

pytestmark = pytest.mark.e2e

STATE = "dispatch_server_state.json"


def half_sent(daemon: Running, body: bytes) -> http.client.HTTPConnection:
    """Return a connection with a submission whose last byte is still to come."""
    connection = daemon.connect()
    connection.putrequest("POST", "/jobs/")
    for name, value in (
        ("X-API-Key", KEY), ("Content-Type", "application/json"), ("Content-Length", str(len(body))),
    ):  # fmt: skip
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(body[:-1])
    # A whole request after it on another connection: when that is answered, the daemon has seen the
    # first one.
    assert daemon.ask("GET", "/")[0] == 200
    return connection


def websocket(daemon: Running, engine_id: str) -> socket.socket:
    """Return a socket after the handshake; what comes next is frames."""
    sock = socket.create_connection(("127.0.0.1", daemon.port), 20)
    head = (
        f"GET /engines/{engine_id}/ws HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
        "Sec-WebSocket-Protocol: v1.distconv\r\n\r\n"
    )
    sock.sendall(head.encode())
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        said += sock.recv(1)
    assert said.startswith(b"HTTP/1.1 101 ")
    return sock


@pytest.mark.alone
def test_sigterm_finishes_open_requests_answers_long_polls_and_exits_0(tmp_path: Path) -> None:
    """A request, two long polls, events, a websocket and an idle connection are open."""
    body = json.dumps(JOB).encode()
    with start(tmp_path) as daemon:
        job = daemon.submit()
        idle = daemon.connect()
        idle.request("GET", "/")
        assert idle.getresponse().read() == b"OK"
        slow = half_sent(daemon, body)
        poll = daemon.connect()
        poll.request(
            "GET", f"/jobs/{job['job_id']}", headers={"X-API-Key": KEY, "Prefer": "wait=60"}
        )
        daemon.ask("POST", "/engines/heartbeat", {"engine_id": "e1"})
        work = daemon.connect()
        asking = {"X-API-Key": KEY, "Prefer": "wait=60", "Content-Type": "application/json"}
        work.request("POST", "/assign_job/", b'{"engine_id": "e1"}', asking)
        pushed = websocket(daemon, "e2")
        events = daemon.connect()
        events.request("GET", "/events", headers={"X-API-Key": KEY})
        stream = events.getresponse()
        assert stream.readline().startswith(b":")
        began_s = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        answer = poll.getresponse()
        assert (answer.status, json.loads(answer.read())["status"]) == (200, "pending")
        assert work.getresponse().status == 204
        frame = pushed.recv(4, socket.MSG_WAITALL)
        assert (frame[0], int.from_bytes(frame[2:], "big")) == (0x88, 1012)  # a close
        pushed.close()
        stream.read()
        slow.send(body[-1:])
        reply = slow.getresponse()
        assert (reply.status, reply.headers["Connection"]) == (200, "close")
        second = json.loads(reply.read())
        assert daemon.process.wait(10) == 0
        assert time.monotonic() - began_s < 8
        for connection in (idle, slow, poll, work, events):
            connection.close()
    assert "draining" in daemon.log
    assert "Traceback" not in daemon.log
    state = json.loads((tmp_path / STATE).read_text())
    assert list(state["jobs"]) == [job["job_id"], second["job_id"]]


@pytest.mark.alone
def test_a_second_sigterm_ends_immediately_and_loses_nothing(tmp_path: Path) -> None:
    with start(tmp_path) as daemon:
        job = daemon.submit()
        slow = half_sent(daemon, json.dumps(JOB).encode())
        daemon.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(0.5)
        began_s = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.wait(10)
        assert time.monotonic() - began_s < 3
        slow.close()
    assert "Traceback" not in daemon.log
    with start(tmp_path) as daemon:
        assert list(daemon.jobs()) == [job["job_id"]]


LOOPS = """
import time

from distconvd import hookimpl

class Loops:
    async def run(self, *, task_status):
        task_status.started()
        print("the service spins", flush=True)
        while True:
            time.sleep({pause_s})

@hookimpl
def distconvd_register_services(registrar):
    registrar.add("loops", lambda context, daemon: Loops())
"""


@pytest.mark.alone
@pytest.mark.parametrize("pause_s", [0, 3600], ids=["busy", "sleeping"])
def test_a_second_sigterm_ends_a_daemon_that_a_plugin_blocks(tmp_path: Path, pause_s: int) -> None:
    (tmp_path / "loops.py").write_text(LOOPS.format(pause_s=pause_s))
    command = [*COMMAND, "--host", "127.0.0.1", "--port", "0", "--plugin", "./loops.py"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "the service spins\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 1
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("store", ["json", "spool"])
def test_a_restart_keeps_everything(tmp_path: Path, store: str) -> None:
    flags = ["--store", store, "--state-file", "state"]
    with start(tmp_path, *flags) as daemon:
        daemon.ask("POST", "/engines/heartbeat", {"engine_id": "e1", "benchmark_time": 5})
        done, failed, running, waiting = (daemon.submit(labels={"n": str(n)}) for n in range(4))
        for _ in range(3):
            daemon.ask("POST", "/assign_job/", {})
        daemon.ask("POST", f"/jobs/{done['job_id']}/complete", {"output_url": "http://h/o"})
        daemon.ask("POST", f"/jobs/{failed['job_id']}/fail", {"error_message": "no"})
        keyed = daemon.ask("POST", "/jobs/", JOB, {"Idempotency-Key": "k"})[1]
        before = daemon.jobs()
        attempts = daemon.ask("GET", f"/jobs/{failed['job_id']}/attempts")[1]
        engine = json.loads(daemon.ask("GET", "/engines/e1")[1])
        assert daemon.stop() == 0
    with start(tmp_path, *flags) as daemon:
        assert daemon.jobs() == before
        assert daemon.ask("GET", f"/jobs/{failed['job_id']}/attempts")[1] == attempts
        assert json.loads(daemon.ask("GET", "/engines/e1")[1])["benchmark_time"] == 5
        assert daemon.ask("POST", "/jobs/", JOB, {"Idempotency-Key": "k"})[1] == keyed
        assert before[running["job_id"]]["status"] in ("assigned", "pending")
        assert before[waiting["job_id"]]["status"] == "pending"
        assert engine["engine_id"] == "e1"
        assert daemon.submit()["job_id"] not in before


def pound(daemon: Running, seen: dict[str, str], lock: threading.Lock) -> None:
    """Submit and end jobs until the daemon is gone; note each acknowledged state."""
    connection = daemon.connect(timeout_s=5)
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}

    def call(path: str, body: Any) -> Any:
        connection.request("POST", path, json.dumps(body), headers)
        reply = connection.getresponse()
        return json.loads(reply.read()) if reply.status == 200 else None

    try:
        while True:
            job = call("/jobs/", JOB)
            if job is not None:
                with lock:
                    seen[job["job_id"]] = "pending"
                done = call(f"/jobs/{job['job_id']}/complete", {"output_url": "http://h/o"})
                if done is not None:
                    with lock:
                        seen[job["job_id"]] = "completed"
    except (OSError, http.client.HTTPException):
        connection.close()


@pytest.mark.parametrize("store", ["json", "spool"])
def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(
    tmp_path: Path, store: str
) -> None:
    rng = random.Random(store)
    seen: dict[str, str] = {}
    lock = threading.Lock()
    flags = ["--store", store, "--state-file", "state"]
    for _ in range(5):
        with start(tmp_path, *flags, "--log-level", "WARN") as daemon:
            found = daemon.jobs()
            for job_id, status in seen.items():
                # What was not acknowledged may have happened all the same.
                assert found[job_id]["status"] in (status, "completed"), job_id
            threads = [threading.Thread(target=pound, args=(daemon, seen, lock)) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(rng.uniform(0.05, 0.5))  # the moment of the kill is what is tried
            daemon.kill()
            for thread in threads:
                thread.join()
            assert "Traceback" not in daemon.log
    with start(tmp_path, *flags) as daemon:
        found = daemon.jobs()
        assert all(found[j]["status"] in (s, "completed") for j, s in seen.items())
        assert len(seen) > 20


JOB_ID = "1704067200123456_0"
ORIGINAL: dict[str, Any] = {
    "jobs": {JOB_ID: {"job_id": JOB_ID, **originals.JOB}},
    "engines": {"engine-001": originals.ENGINE},
}


def test_a_state_file_of_the_original_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / STATE).write_text(json.dumps(ORIGINAL, indent=4))
    with start(tmp_path) as daemon:
        (job,) = daemon.jobs().values()
        assert ORIGINAL["jobs"][job["job_id"]].items() <= job.items()
        engine = json.loads(daemon.ask("GET", "/engines/engine-001")[1])
        assert (engine["benchmark_time"], engine["streaming_support"]) == (125.5, True)
        status, body = daemon.ask("POST", "/assign_job/", {"engine_id": "engine-001"})
        assert (status, json.loads(body)["job_id"]) == (200, job["job_id"])


WHOLE = json.dumps(ORIGINAL)
STATES: list[tuple[str, bytes | None, int, bool]] = [
    # name, contents, jobs after the start, whether a bad file is kept aside
    ("missing", None, 0, False),
    ("empty", b"", 0, True),
    ("an empty object", b"{}", 0, False),
    ("jobs only", b'{"jobs":{}}', 0, False),
    ("half of it", WHOLE[: len(WHOLE) // 2].encode(), 0, True),
    ("garbage", b"\x00\xff garbage", 0, True),
    ("nested without end", b'{"jobs":' + b"[" * 100_000, 0, True),
    ("another shape", b'["jobs"]', 0, True),
    ("a job that is not an object", b'{"jobs":{"1_0":5},"engines":{}}', 0, True),
]


@pytest.mark.parametrize("name,contents,jobs,kept_aside", STATES, ids=[row[0] for row in STATES])
def test_any_state_file_lets_the_daemon_start_and_a_bad_one_is_kept_aside(
    tmp_path: Path, name: str, contents: bytes | None, jobs: int, kept_aside: bool
) -> None:
    if contents is not None:
        (tmp_path / STATE).write_bytes(contents)
    with start(tmp_path) as daemon:
        assert len(daemon.jobs()) == jobs
        job = daemon.submit()
        assert daemon.stop() == 0
    aside = [p for p in tmp_path.iterdir() if p.is_file() and p.read_bytes() == contents]
    assert bool(aside) == kept_aside
    if kept_aside:
        assert "distconvd.store " in daemon.log  # an error line says what is wrong and where
    assert json.loads((tmp_path / STATE).read_text())["jobs"].keys() == {job["job_id"]}


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """Mount a file system of one megabyte, if this user may."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip("no tmpfs can be mounted here (it needs root); see test_operations in memory")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_on_a_full_disk_changes_fail_and_reads_work_until_there_is_space_again(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    with start(small_disk.parent, "--state-file", str(small_disk / "state.json")) as daemon:
        job = daemon.submit()
        free = shutil.disk_usage(small_disk).free
        ballast.write_bytes(b"x" * free)
        statuses = [daemon.ask("POST", "/jobs/", JOB | {"labels": {"x": "y" * 200}})[0] for _ in range(40)]  # fmt: skip
        assert statuses[-1] == 503
        kept = 1 + statuses.count(200)
        assert daemon.ask("GET", "/readyz")[0] == 503
        assert len(daemon.jobs()) == kept
        ballast.unlink()
        deadline_s = time.monotonic() + 15
        while daemon.ask("GET", "/readyz")[0] != 200 and time.monotonic() < deadline_s:
            time.sleep(0.05)  # the daemon tries by itself; there is nothing else to wait for
        assert daemon.ask("GET", "/readyz")[0] == 200
        assert daemon.submit()["status"] == "pending"
        daemon.kill()
    with start(small_disk.parent, "--state-file", str(small_disk / "state.json")) as daemon:
        assert len(daemon.jobs()) == kept + 1
        assert job["job_id"] in daemon.jobs()


def test_a_start_on_a_full_disk_is_not_ready_until_there_is_space(small_disk: Path) -> None:
    """With a webhook, whose queue cannot be written either."""
    state = small_disk / "state.json"
    with start(small_disk.parent, "--state-file", str(state)) as daemon:
        job = daemon.submit()
        daemon.kill()
    ballast = small_disk / "ballast"
    with suppress(OSError):
        ballast.write_bytes(b"x" * 2_000_000)
    hook = ['plugin.webhook.urls=["http://127.0.0.1:9/"]', f'plugin.webhook.secret="{"s" * 32}"']
    flags = [word for text in hook for word in ("--set", text)]
    with start(small_disk.parent, "--state-file", str(state), *flags) as daemon:
        status, body = daemon.ask("GET", "/readyz")
        assert (status, b"No space left" in body) == (503, True)
        assert job["job_id"] in daemon.jobs()
        ballast.unlink()
        deadline_s = time.monotonic() + 15
        while daemon.ask("GET", "/readyz")[0] != 200 and time.monotonic() < deadline_s:
            time.sleep(0.05)  # the daemon tries by itself; there is nothing else to wait for
        assert daemon.submit()["status"] == "pending"


@pytest.mark.slow
@pytest.mark.alone
def test_a_daemon_suspended_for_longer_than_a_lease_expires_no_lease(
    tmp_path: Path,
) -> None:
    flags = ["--set", "dispatch.lease_s=2", "--set", "dispatch.start_grace_s=0"]
    with start(tmp_path, *flags) as daemon:
        job_id = daemon.submit()["job_id"]
        beat = {"engine_id": "E1", "status": "idle", "benchmark_time": 1.0}
        assert daemon.ask("POST", "/engines/heartbeat", beat)[0] == 200
        assert daemon.ask("POST", "/assign_job/", {"engine_id": "E1"})[0] == 200
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(3)  # real time has to pass: more than the lease, and than SUSPENDED_S
        daemon.process.send_signal(signal.SIGCONT)
        active_beat = beat | {"jobs": [{"job_id": job_id, "attempt": 1}]}
        verdict = json.loads(daemon.ask("POST", "/engines/heartbeat", active_beat)[1])["jobs"][0]
        assert verdict["verdict"] == "keep"
        assert daemon.jobs()[job_id]["attempt"] == 1
        assert "the process was suspended" in daemon.log
